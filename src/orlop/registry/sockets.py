"""Connections that can be ended from another thread, whatever they wait for."""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import unquote

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.response import HTTPResponse
from urllib3.util import Url

from orlop.errors import Cancelled, DataLoss
from orlop.registry import socks as socks_protocol

_SOCKS_PORT = 1080

_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
_Answer = SimpleQueue[Sequence[_Address] | Exception]


class Sockets:
    """The open sockets of one client. Each is held by a duplicate, which TLS does not hide.

    A peer must take some of what is sent within `send_limit` seconds. The head of a response must
    have come within `head_limit` seconds, even if it trickles.
    """

    def __init__(self, send_limit: float, head_limit: float) -> None:
        self.send_limit = send_limit
        self.head_limit = head_limit
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._asking: set[_Answer] = set()
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

    def look_up(self, host: str, port: int, limit: float | None) -> Sequence[_Address]:
        """The addresses of a host; TimeoutError after `limit` seconds, Cancelled by `abort`.

        The system's resolver can be neither hurried nor woken: a thread waits for it, and is left
        behind where it takes too long.
        """
        answer: _Answer = SimpleQueue()
        with self._lock:
            if self._aborted:
                raise Cancelled
            self._asking.add(answer)
        try:
            asking = (host, port, answer)
            threading.Thread(target=_look_up, args=asking, name="look-up", daemon=True).start()
            found = answer.get(timeout=limit)
        except Empty:
            raise TimeoutError(f"no answer from DNS within {limit:g} s") from None
        finally:
            with self._lock:
                self._asking.discard(answer)
        if isinstance(found, Exception):
            raise found
        return found

    def abort(self) -> None:
        """Shut down all there are, and let no more come; this wakes whoever waits for them."""
        with self._lock:
            self._aborted = True
            held, asking = list(self._open), list(self._asking)
        for each in held:
            _shut_down(each)
        for answer in asking:
            answer.put(Cancelled())

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
    def __init__(
        self, *args: Any, sockets: Sockets, socks: Url | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._sockets = sockets
        self._socks = socks
        self._held: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        """urllib3's hook for making a socket. This one is held before it begins to connect."""
        host, port = self.host.strip("[]"), self.port
        if self._socks is not None:
            host, port = (self._socks.host or "").strip("[]"), self._socks.port or _SOCKS_PORT
        try:
            found = self._sockets.look_up(host, port, self._seconds())
        except socket.gaierror as error:
            raise NameResolutionError(host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"not a host name: {error}") from error
        except TimeoutError as error:
            raise NewConnectionError(self, str(error)) from error
        failure = OSError("no address")
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                self._held = self._sockets.hold(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeout)
                sock.connect(address)
                if self._socks is not None:
                    auth = unquote(self._socks.auth or "")
                    socks_protocol.connect(sock, self.host.strip("[]"), self.port, auth)
            except OSError as error:
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            return sock
        raise NewConnectionError(self, str(failure)) from failure

    def _seconds(self) -> float | None:
        return self.timeout if isinstance(self.timeout, int | float) else None

    def endheaders(self, *args: Any, **options: Any) -> None:
        """As its base; the body that follows has more time than the connection had."""
        super().endheaders(*args, **options)
        if self.sock is not None:
            self.sock.settimeout(self._sockets.send_limit)

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


def _look_up(host: str, port: int, answer: _Answer) -> None:
    try:
        answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - raised where it was asked for
        answer.put(error)


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
    """Takes `sockets`, and a `socks` proxy, besides what its base takes."""

    ConnectionCls = _Connection


class HttpsPool(HTTPSConnectionPool):
    """Takes `sockets`, and a `socks` proxy, besides what its base takes."""

    ConnectionCls = _TlsConnection
