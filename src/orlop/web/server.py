"""An HTTP/1.1 server in threads: one that accepts, and one for each connection.

Everything that a client can draw out has an end: the head of a request in bytes and time, silence,
the rate of bodies in both directions, the number of connections.
"""

from __future__ import annotations

import io
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from orlop.errors import FailedPrecondition
from orlop.web import pace
from orlop.web.body import BadRequest, Body
from orlop.web.exchange import Reply, Request, Site, Slice, Stream

_log = logging.getLogger(__name__)

_BACKLOG = 128
_HEAD_MAX = 64 << 10
_LINE_MAX = 16 << 10
_QUERY_MAX = 32
_STOP_LIMIT = 5.0
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections at a time, and seconds that a client may take for nothing.

    When there are as many, a newcomer is sent away or, with `yielding`, a client goes: among those
    that have asked for nothing yet, or not been let in, who came first; or else whose last request
    is the longest ago. Who is sent a `Stream` stays: a site has its own limit of those.
    """

    connections: int = 256
    patience: float = pace.PATIENCE
    yielding: bool = False


class _Rank(IntEnum):
    """Who has to go before whom, lowest first."""

    STRANGER = auto()
    GUEST = auto()
    FOLLOWER = auto()


class HttpServer:
    """Serves a socket that listens, after `start`; `close` closes it as well.

    `name` says in the log whose clients these are. `tls` None is plain HTTP.
    """

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._name = name
        self._tls = tls
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._ranks: dict[socket.socket, _Rank] = {}  # by their last request
        self._closed = False
        self._listener = listener
        self._acceptor: threading.Thread | None = None

    def start(self, site: Site) -> None:
        self._acceptor = threading.Thread(
            target=self._accept, args=(site,), name=f"{self._name}-accept", daemon=True
        )
        self._acceptor.start()

    def close(self) -> None:
        """Stop at once: transfers under way are broken off, and clients resume elsewhere."""
        with self._lock:
            self._closed = True
            threads = list(self._open.values())
            for connection in self._open:
                _shut(connection)
        _shut(self._listener)
        if self._acceptor is not None:
            self._acceptor.join(_STOP_LIMIT)
        self._listener.close()
        end = time.monotonic() + _STOP_LIMIT
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))

    def _accept(self, site: Site) -> None:
        refused: int | None = 0
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                # Out of descriptors, or a client that has gone again.
                if error.errno != refused:
                    _log.warning("cannot accept a %s client: %s", self._name, error)
                refused = error.errno
                time.sleep(0.1)
                continue
            refused = 0
            self._take(connection, site)

    def _take(self, connection: socket.socket, site: Site) -> None:
        """Give a connection its thread, if there is room for one more."""
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self._limits.patience)
            if self._tls is not None:
                # The handshake is the client's to delay: it happens in the thread.
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
        except OSError:
            connection.close()
            return
        thread = threading.Thread(
            target=self._converse, args=(connection, site), name=self._name, daemon=True
        )
        gone = None
        with self._lock:
            room = len(self._open) < self._limits.connections
            if not room and self._limits.yielding:
                gone = self._least()
            welcome = not self._closed and (room or gone is not None)
            if gone is not None:
                self._drop(gone)
            if welcome:
                self._open[connection] = thread
                self._ranks[connection] = _Rank.STRANGER
        if gone is not None:
            _shut(gone)
        if not welcome:
            connection.close()
            return
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("cannot serve a %s client: %s", self._name, error)
            self._forget(connection)

    def _converse(self, connection: socket.socket, site: Site) -> None:
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            _Conversation(connection, site, self._limits.patience, partial(self._note, connection))
        except (OSError, BadRequest) as error:
            _log.debug("a %s client has gone: %s", self._name, error)
        except Exception:  # noqa: BLE001 - one client's fault must not end the thread unsaid
            _log.exception("a %s client's request failed", self._name)
        finally:
            self._forget(connection)

    def _least(self) -> socket.socket | None:
        """Who has to go for a newcomer, if anybody; called with the lock."""
        others = {each: rank for each, rank in self._ranks.items() if rank < _Rank.FOLLOWER}
        return min(others, key=others.__getitem__, default=None)

    def _note(self, connection: socket.socket, rank: _Rank) -> None:
        """It is this from now on, and the last of them that would have to go."""
        with self._lock:
            if self._ranks.pop(connection, None) is not None:
                self._ranks[connection] = rank

    def _drop(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        self._ranks.pop(connection, None)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._drop(connection)
        _shut(connection)
        connection.close()


class _Conversation(BaseHTTPRequestHandler):
    """The requests of one connection, one after another; making it holds the conversation."""

    protocol_version = "HTTP/1.1"
    connection: socket.socket

    def __init__(
        self, connection: socket.socket, site: Site, patience: float, note: Callable[[_Rank], None]
    ) -> None:
        self._site = site
        self._note = note
        self._patience = patience
        super().__init__(connection, connection.getpeername(), None)  # type: ignore[arg-type]

    def setup(self) -> None:
        self.connection = self.request
        self._raw = pace.PacedReader(self.connection, _HEAD_MAX, self._patience)
        self.rfile = io.BufferedReader(self._raw, _LINE_MAX)
        self.wfile = _Output(self.connection, self._patience)
        self._hang_up = False

    def finish(self) -> None:
        """Before a hang-up, let the client read why (RFC 9112, section 9.6).

        A connection that is closed with data unread is reset, and the reply is lost with it.
        """
        if self._hang_up:
            pace.drain(self.connection)

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command = ""  # of a request that does not parse
        self._raw.begin_head()
        try:
            self.raw_requestline = self.rfile.readline(_LINE_MAX + 1)
            if not self.raw_requestline:
                return
            if len(self.raw_requestline) > _LINE_MAX:
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if not self.parse_request():
                return
        except pace.HeadTooLarge:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._raw.end_head()
        self._note(_Rank.GUEST)
        self._serve()

    def _serve(self) -> None:
        try:
            request = self._request()
        except BadRequest as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        reply = self._site.answer(request)
        if reply.status == HTTPStatus.UNAUTHORIZED:
            self._note(_Rank.STRANGER)
        try:
            # What is left of a body would be read as the next request.
            if not request.body.finished:
                self._hang_up = self.close_connection = True
            self._send(reply)
        finally:
            reply.close()

    def _request(self) -> Request:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.lower()
            if key in headers and key in ("content-length", "transfer-encoding", "host"):
                raise BadRequest(f'header "{key}" is there twice')
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        try:
            parts = urlsplit(self.path)
            pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_QUERY_MAX)
        except ValueError as error:
            raise BadRequest(f"the request's target does not parse: {error}") from None
        query: dict[str, str] = {}
        for key, value in pairs:
            query.setdefault(key, value)
        body = Body.of(self.rfile, headers)
        return Request(self.command, unquote(parts.path), query, headers, body)

    def _send(self, reply: Reply) -> None:
        status = HTTPStatus(reply.status)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if reply.length is None:
            self.close_connection = True  # which ends the body (RFC 9112, section 6.3)
        elif status not in _BODILESS:
            lines.append(f"Content-Length: {reply.length}")
        if self.close_connection:
            lines.append("Connection: close")
        lines += ["", ""]
        head = "\r\n".join(lines).encode("latin-1", "replace")
        if self.command == "HEAD" or status in _BODILESS:
            pace.send(self.connection, head, self._patience)
        elif isinstance(reply.body, Slice):
            pace.send(self.connection, head, self._patience)
            part = reply.body
            pace.send_file(self.connection, part.file.fd, part.start, part.length, self._patience)
        elif isinstance(reply.body, bytes):
            pace.send(self.connection, head + reply.body, self._patience)
        else:
            self._note(_Rank.FOLLOWER)
            pace.send(self.connection, head, self._patience)
            self._send_stream(reply.body)

    def _send_stream(self, stream: Stream) -> None:
        client = select.poll()
        client.register(self.connection, select.POLLIN)
        for piece in stream.pieces():
            if piece:
                pace.send(self.connection, piece, self._patience)
            elif client.poll(0):
                return  # the client has gone: in the middle of a reply it has nothing to say

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is not even a request, and hang up."""
        self._hang_up = self.close_connection = True
        text = message or HTTPStatus(code).phrase.lower()
        self._send(self._site.refuse(code, text))

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


class _Output(io.BufferedIOBase):
    """What `BaseHTTPRequestHandler` itself says: "100 Continue"."""

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self._connection = connection
        self._patience = patience

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        pace.send(self._connection, bytes(data), self._patience)
        return len(data)


def listen_tcp(host: str, port: int, what: str) -> socket.socket:
    """Raises FailedPrecondition when the address cannot be had, naming `what` it was for."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise FailedPrecondition(
            f'cannot serve {what} on "{host}:{port}": {error.strerror}'
        ) from error


def _shut(connection: socket.socket) -> None:
    """Wake whoever reads or writes; without TLS's goodbye, which could block."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
