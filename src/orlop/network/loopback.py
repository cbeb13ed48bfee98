"""Published ports on [::1]: the kernel routes no packet of its IPv6 loopback to another interface.

So connections to there are accepted here, and a worker process (`relaying`) that is started with
the first one carries them to the container. It ends with the daemon.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
import time
from collections.abc import Callable

from orlop.errors import OrlopError
from orlop.fork.worker import Companion, Spawner
from orlop.rpc.reactor import Reactor

ADDRESS = "::1"
_JOB = "orlop.network.relaying:serve"
_BACKLOG = 128
_PAUSE = 0.1
_LIMIT = 1.0  # seconds for the process to take a connection
_log = logging.getLogger(__name__)
Target = Callable[[], str]
"""The address that a connection is to reach at the moment, "" if none."""


class Loopback:
    """Accepts, in a thread of its own from the first port on. Usable from any thread.

    Nobody but `close` waits for that thread, which may have to for the process, for a moment.
    """

    def __init__(self, forks: Spawner) -> None:
        self._forks = forks
        self._lock = threading.Lock()  # also: a socket is not closed while it accepts
        self._reactor: Reactor | None = None
        self._worker: Companion | None = None  # the thread's own

    def listen(self, bound: socket.socket, target: Target, port: int) -> None:
        """Have who connects to a socket of TCP at [::1] reach `port` of a container.

        Raises OSError if another one listens there; the socket is as it was then.
        """
        # So that the next one may have the port while connections of this one still end.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.listen(_BACKLOG)
        except OSError:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            raise
        bound.setblocking(False)
        with self._lock:
            if self._reactor is None:
                self._reactor = Reactor("orlop-loopback")
        self._reactor.register(bound, lambda: self._accept(bound, target, port))

    def stop(self, bound: socket.socket) -> None:
        """Close the socket; its port is free then."""
        assert self._reactor is not None
        self._reactor.unregister(bound)  # before another socket may have its number
        with self._lock:
            bound.close()

    def close(self) -> None:
        if self._reactor is not None:
            self._reactor.close()
        self._drop()

    def _accept(self, bound: socket.socket, target: Target, port: int) -> None:
        try:
            with self._lock:
                connection, _ = bound.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(_PAUSE)  # it would be ready at once again
            return
        with connection:
            if connection.getsockname()[0] != ADDRESS:
                return  # the kernel leads these, or is about to
            try:
                if address := target():
                    self._hand_over(connection, json.dumps([address, port]).encode())
            except (OSError, OrlopError) as error:
                _log.warning("a connection to [%s] for port %d is lost: %s", ADDRESS, port, error)

    def _hand_over(self, connection: socket.socket, target: bytes) -> None:
        if self._worker is not None:
            try:
                self._send(self._worker.channel, connection, target)
            except (BrokenPipeError, ConnectionResetError):
                self._drop()  # it has been killed
            else:
                return
        self._worker = Companion(
            self._forks, _JOB, {}, socket.SOCK_SEQPACKET, name="orlop-loopback"
        )
        self._worker.channel.settimeout(_LIMIT)
        self._send(self._worker.channel, connection, target)

    @staticmethod
    def _send(channel: socket.socket, connection: socket.socket, target: bytes) -> None:
        try:
            socket.send_fds(channel, [target], [connection.fileno()])
        except TimeoutError:
            _log.warning("connections to [%s] are lost: their process takes none", ADDRESS)
            channel.setblocking(False)  # no more waiting, until it takes one
        except BlockingIOError:
            pass
        else:
            channel.settimeout(_LIMIT)

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
