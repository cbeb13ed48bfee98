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

from orlop.errors import OrlopError
from orlop.fork.worker import Spawner, Worker
from orlop.rpc.reactor import Reactor

ADDRESS = "::1"
_JOB = "orlop.network.relaying:serve"
_BACKLOG = 128
_PAUSE = 0.1
_log = logging.getLogger(__name__)


class Loopback:
    """Accepts, in a thread of its own from the first port on. Usable from any thread."""

    def __init__(self, forks: Spawner) -> None:
        self._forks = forks
        self._lock = threading.Lock()
        self._reactor: Reactor | None = None
        self._worker: Worker | None = None  # this and the channel to it are the thread's own
        self._channel: socket.socket | None = None

    def listen(self, bound: socket.socket, address: str, port: int) -> None:
        """Have who connects to a socket of TCP at [::1] reach `port` of a container's address.

        Raises OSError if another one listens there.
        """
        # So that the next one may have the port while connections of this one still end.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
        with self._lock:
            if self._reactor is None:
                self._reactor = Reactor("orlop-loopback")
        self._reactor.register(bound, lambda: self._accept(bound, address, port))

    def stop(self, bound: socket.socket) -> None:
        """Close the socket; its port is free then."""
        closed = threading.Event()

        def close() -> None:
            bound.close()
            closed.set()

        assert self._reactor is not None
        self._reactor.unregister(bound, close)
        closed.wait()

    def close(self) -> None:
        if self._reactor is not None:
            self._reactor.close()
        self._drop()

    def _accept(self, bound: socket.socket, address: str, port: int) -> None:
        try:
            connection, _ = bound.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(_PAUSE)  # it would be ready at once again
            return
        with connection:
            if connection.getsockname()[0] != ADDRESS:
                return  # the kernel leads these, or is about to
            try:
                self._hand_over(connection, address, port)
            except (OSError, OrlopError) as error:
                _log.warning("a connection to port %d of %s is lost: %s", port, address, error)

    def _hand_over(self, connection: socket.socket, address: str, port: int) -> None:
        target = json.dumps([address, port]).encode()
        if self._channel is not None:
            try:
                socket.send_fds(self._channel, [target], [connection.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self._drop()  # it has been killed
            else:
                return
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._worker = Worker(self._forks, _JOB, {}, [theirs.fileno()], name="orlop-loopback")
        socket.send_fds(self._channel, [target], [connection.fileno()])

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._worker is not None:
            self._worker.__exit__(None, None, None)
            self._worker = None
