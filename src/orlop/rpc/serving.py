"""What servers on Unix sockets have in common: a reactor reads, a pool of threads serves."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from orlop import tracing
from orlop.errors import Cancelled, OrlopError, Unavailable
from orlop.rpc import dispatch
from orlop.rpc.calls import Calls
from orlop.rpc.context import CallContext
from orlop.rpc.dispatch import LiveCalls
from orlop.rpc.reactor import Reactor
from orlop.rpc.spans import call_span, note_failure
from orlop.rpc.table import Method, ServiceTable
from orlop.rpc.threads import ThreadPool

_log = logging.getLogger(__name__)

# Most wait, for the end of a container, say. Each takes two of the 65530 maps that the kernel lets
# a process have (max_map_count); gRPC and ttrpc have so many each, and together half of the maps.
_THREADS = 1 << 13
_PEER = struct.Struct("3i")
_ACCEPT_PAUSE = 1.0
_POLLED = "grpc.health.v1.Health"  # by clients, every few seconds


class Connection(Protocol):
    """One client."""

    def start(self) -> None: ...
    def retire(self) -> None:
        """Tell the client, where there is a way, that no more calls will be served."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """What the connections of a server share; `transport` is "grpc" or "ttrpc"."""

    transport: str
    table: ServiceTable
    reactor: Reactor
    pool: ThreadPool
    live: LiveCalls
    calls: Calls | None

    def submit(self, action: Callable[..., None], *args: object) -> None:
        """Have a thread do it; nothing happens when the server is stopping."""
        self.pool.submit(action, *args)

    def serve(
        self,
        service: str,
        method: str,
        context: CallContext,
        answer: Callable[[], None],
        fail: Callable[[OrlopError], None],
    ) -> None:
        """Answer a call, or fail it; neither raises when the client has gone."""
        served = self.table.find(service, method)
        if served is None or not tracing.on() or service == _POLLED:
            self._serve(served, service, method, context, answer, fail)
            return
        with call_span(self.transport, service, method, tracing.SERVER, context.metadata) as span:
            failure = self._serve(served, service, method, context, answer, fail)
            note_failure(span, self.transport, failure)

    def _serve(
        self,
        counted: Method | None,
        service: str,
        method: str,
        context: CallContext,
        answer: Callable[[], None],
        fail: Callable[[OrlopError], None],
    ) -> OrlopError | None:
        """What it was failed with, None for an answer."""
        started, code, timer, failure = time.perf_counter(), 0, None, None
        if counted is not None and self.calls is not None:
            self.calls.began(counted)
        if (left := context.remaining()) is not None:
            timer = self.reactor.call_later(left, context.cancel)
        try:
            answer()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            failure = dispatch.failure(error, service, method, context, gone=context.cancelled)
            if isinstance(failure, Cancelled) and self.live.stopping:
                # Clients take "cancelled" for their own doing, and do not come back.
                failure = Unavailable("server is stopping")
            code = failure.code
            fail(failure)
        finally:
            if timer is not None:
                timer.cancel()
            self.live.remove(context)
            if counted is not None and self.calls is not None:
                self.calls.ended(counted, context, code, time.perf_counter() - started)
        return failure


class SocketServer:
    """Serves a table on Unix sockets; `same_user` refuses peers of another user.

    `connect` makes the connection of a client. Handlers run on a pool that grows with the calls in
    flight.
    """

    def __init__(
        self,
        name: str,
        table: ServiceTable,
        reactor: Reactor,
        connect: Callable[[Serving, socket.socket, Callable[[Connection], None]], Connection],
        *,
        same_user: bool,
        calls: Calls | None,
    ) -> None:
        self._name = name
        self._reactor = reactor
        self._connect = connect
        self._same_user = same_user
        self._live = LiveCalls()
        self._pool = ThreadPool(_THREADS, name)
        self._serving = Serving(name, table, reactor, self._pool, self._live, calls)
        self._listeners: list[tuple[socket.socket, Path]] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._refused: int | None = None  # errno of the last that was not accepted
        self._connections: set[Connection] = set()

    @property
    def threads(self) -> int:
        """How many serve calls, or wait for some."""
        return self._pool.size

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._pool.waiting

    def add_unix(self, path: Path, mode: int = 0o600, uid: int = -1, gid: int = -1) -> None:
        """Listen at `path`; raises as `dispatch.bind_unix` does."""
        listener = dispatch.bind_unix(path, mode, uid, gid)
        listener.listen(dispatch.UNIX_BACKLOG)
        listener.setblocking(False)
        self._listeners.append((listener, path))

    def start(self) -> None:
        for listener, _ in self._listeners:
            self._listen(listener)

    def stop(self, grace: float = 1.0) -> None:
        """Take no more clients, cancel every call, and return when all handlers have ended.

        Handlers may answer for `grace` seconds; then the connections are closed under them.
        """
        with self._lock:
            self._stopping = True
            connections = list(self._connections)
        for listener, path in self._listeners:
            self._reactor.unregister(listener, listener.close)
            path.unlink(missing_ok=True)
        for connection in connections:
            connection.retire()
        self._live.cancel_all()
        timer = self._reactor.call_later(grace, self._close_connections)
        self._pool.close()
        timer.cancel()
        self._close_connections()

    def _close_connections(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def _listen(self, listener: socket.socket) -> None:
        self._reactor.register(listener, partial(self._accept, listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Most likely no descriptor is left: clients wait until some are.
            if error.errno != self._refused:
                _log.error("cannot accept a %s client: %s", self._name, error)
            self._refused = error.errno
            self._reactor.unregister(listener)
            self._reactor.call_later(_ACCEPT_PAUSE, partial(self._listen, listener))
            return
        self._refused = None
        if self._same_user and not _is_same_user(sock):
            sock.close()
            return
        sock.setblocking(True)
        connection = self._connect(self._serving, sock, self._forget)
        with self._lock:
            if self._stopping:
                sock.close()
                return
            self._connections.add(connection)
        connection.start()

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


def _is_same_user(sock: socket.socket) -> bool:
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.geteuid())
