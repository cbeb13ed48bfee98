"""Connections that can be ended from another thread, whatever they wait for."""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from contextlib import suppress
from typing import Any, NamedTuple

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.response import HTTPResponse

from orlop.errors import Cancelled, DataLoss


class Sockets:
    """The open sockets of one client. Each is held by a duplicate, which TLS does not hide.

    The head of a response must have come within `head_limit` seconds, even if it trickles.
    """

    def __init__(self, head_limit: float) -> None:
        self.head_limit = head_limit
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._aborted = False

    def hold(self, sock: socket.socket) -> socket.socket:
        """A duplicate, to live as long as the connection; Cancelled once `abort` was called."""
        held = sock.dup()
        with self._lock:
            if not self._aborted:
                self._open.add(held)
                return held
        held.close()
        raise Cancelled

    def abort(self) -> None:
        """Shut down all there are, and let no more come; this wakes whoever waits for them."""
        with self._lock:
            self._aborted = True
            held = list(self._open)
        for each in held:
            _shut_down(each)

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            held = list(self._open)
        for each in held:
            each.close()


class FilePart(NamedTuple):
    """Bytes of an open file: what a body may consist of, so that the kernel sends them."""

    fd: int
    start: int
    size: int


class _Connection(HTTPConnection):
    def __init__(self, *args: Any, sockets: Sockets, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sockets = sockets
        self._held: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        """urllib3's hook for making a socket. This one is held before it begins to connect."""
        try:
            found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"not a host name: {error}") from error
        failure = OSError("no address")
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                self._held = self._sockets.hold(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeout)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            return sock
        raise NewConnectionError(self, str(failure)) from failure

    def send(self, data: Any) -> None:
        """As its base, of bytes; and parts of files."""
        if not isinstance(data, FilePart):
            super().send(data)
        elif type(self.sock) is socket.socket:
            self._send_file(self.sock, data)
        else:  # through TLS
            read = os.pread(data.fd, data.size, data.start)
            _check_end(data, len(read))
            super().send(read)

    def _send_file(self, sock: socket.socket, part: FilePart) -> None:
        done = 0
        while done < part.size:
            try:
                sent = os.sendfile(sock.fileno(), part.fd, part.start + done, part.size - done)
            except BlockingIOError:
                _await_room(sock)
                continue
            done += sent
            if not sent:
                _check_end(part, done)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        if self._held is None:
            return super().getresponse()
        limit = threading.Timer(self._sockets.head_limit, _shut_down, (self._held,))
        limit.daemon = True
        limit.start()
        try:
            return super().getresponse()
        finally:
            limit.cancel()


def _check_end(part: FilePart, done: int) -> None:
    if done < part.size:
        raise DataLoss(
            f"blob ends after {part.start + done} bytes, {part.start + part.size} were expected"
        )


def _await_room(sock: socket.socket) -> None:
    timeout = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if timeout is None else 1000 * timeout):
        raise TimeoutError("peer does not read")


def _shut_down(held: socket.socket) -> None:
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class HttpPool(HTTPConnectionPool):
    """Takes `sockets` besides what its base takes."""

    ConnectionCls = _Connection


class HttpsPool(HTTPSConnectionPool):
    """Takes `sockets` besides what its base takes."""

    ConnectionCls = _TlsConnection
