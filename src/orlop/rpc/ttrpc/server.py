"""A ttrpc server: a reactor reads, a pool of threads serves."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from orlop.errors import InvalidArgument, OrlopError, Unimplemented
from orlop.rpc import dispatch
from orlop.rpc.context import LEASE_HEADER, NAMESPACE_HEADER_TTRPC, CallContext
from orlop.rpc.dispatch import LiveCalls, OnCall
from orlop.rpc.table import Method, ServiceTable
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call, Message, Refusal, ServerProtocol
from orlop.rpc.ttrpc.reactor import Reactor

_READ = 256 * 1024
_THREADS = 1024
_SEND_TIMEOUT = struct.pack("ll", 30, 0)
_PEER = struct.Struct("3i")
# A stream whose handler lags behind this many messages stops its connection from being read.
_QUEUE_HIGH, _QUEUE_LOW = 64, 16


class TtrpcServer:
    """Serves a table on Unix sockets; `same_user` refuses peers of another user.

    Handlers run on a pool that grows with the calls in flight. `stop` cancels them all.
    """

    def __init__(
        self,
        table: ServiceTable,
        reactor: Reactor,
        *,
        same_user: bool = True,
        on_call: OnCall | None = None,
    ) -> None:
        self.table = table
        self.reactor = reactor
        self.live = LiveCalls()
        self.on_call = on_call
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ttrpc")
        self._same_user = same_user
        self._listeners: list[tuple[socket.socket, Path]] = []
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._stopped = False

    def add_unix(self, path: Path, mode: int = 0o600) -> None:
        """Listen at `path`; FailedPrecondition when another server does."""
        dispatch.claim_socket_path(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        path.chmod(mode)
        listener.listen(dispatch.UNIX_BACKLOG)
        listener.setblocking(False)
        self._listeners.append((listener, path))

    def start(self) -> None:
        for listener, _ in self._listeners:
            self.reactor.register(listener, lambda each=listener: self._accept(each))  # type: ignore[misc]

    def stop(self) -> None:
        """Close every socket, cancel every call, and wait for the handlers."""
        for listener, path in self._listeners:
            self.reactor.unregister(listener, listener.close)
            path.unlink(missing_ok=True)
        self.live.cancel_all()
        with self._lock:
            self._stopped = True
            connections = list(self._connections)
        for connection in connections:
            connection.close()
        self.pool.shutdown(wait=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if self._same_user and not _is_same_user(sock):
            sock.close()
            return
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        connection = _Connection(self, sock)
        with self._lock:
            if self._stopped:
                sock.close()
                return
            self._connections.add(connection)
        self.reactor.register(sock, connection.readable)

    def forget(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


def _is_same_user(sock: socket.socket) -> bool:
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.geteuid())


class _Connection:
    """One client: its calls, its open request streams, and a lock for what goes out."""

    def __init__(self, server: TtrpcServer, sock: socket.socket) -> None:
        self._server = server
        self._socket = sock
        self._protocol = ServerProtocol()
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._calls: dict[int, CallContext] = {}
        self._inboxes: dict[int, _Inbox] = {}
        self._closed = False

    def readable(self) -> None:
        try:
            data = self._socket.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for event in self._protocol.feed(data):
            match event:
                case Call():
                    self._start(event)
                case Message():
                    self._deliver(event)
                case Refusal():
                    self._submit(self._send_error, event.stream, event.error)

    def pause(self) -> None:
        self._server.reactor.unregister(self._socket)

    def resume(self) -> None:
        if not self._closed:
            self._server.reactor.register(self._socket, self.readable)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            calls, inboxes = list(self._calls.values()), list(self._inboxes.values())
        self._server.forget(self)
        self._server.reactor.unregister(self._socket, self._socket.close)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for context in calls:
            context.cancel()
        for inbox in inboxes:
            inbox.end()

    def _submit(self, action: object, *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server is stopping
            self._server.pool.submit(action, *args)  # type: ignore[arg-type]

    def _start(self, call: Call) -> None:
        method = self._server.table.find(call.service, call.method)
        if method is None:
            error = Unimplemented(f"method /{call.service}/{call.method} is not served here")
            self._submit(self._send_error, call.stream, error)
            return
        context = CallContext(
            namespace=call.metadata.get(NAMESPACE_HEADER_TTRPC, ""),
            lease=call.metadata.get(LEASE_HEADER, ""),
            deadline=dispatch.deadline_after(call.timeout),
            metadata=call.metadata,
        )
        inbox = _Inbox(self) if method.client_streaming else None
        with self._lock:
            self._calls[call.stream] = context
            if inbox is not None:
                self._inboxes[call.stream] = inbox
        if inbox is not None:
            if call.payload:
                inbox.put(call.payload)
            if not call.open:
                inbox.end()
        self._server.live.add(context)
        self._submit(self._serve, call, method, context, inbox)

    def _deliver(self, message: Message) -> None:
        with self._lock:
            inbox = self._inboxes.get(message.stream)
        if inbox is None:
            return
        if message.payload is not None:
            inbox.put(message.payload)
        if message.last:
            inbox.end()

    def _serve(
        self, call: Call, method: Method, context: CallContext, inbox: _Inbox | None
    ) -> None:
        started, code = time.perf_counter(), 0
        try:
            self._send(self._answer(call, method, context, inbox))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            failure = dispatch.as_orlop_error(error, call.service, call.method)
            code = failure.code
            self._send_error(call.stream, failure)
        finally:
            self._server.live.remove(context)
            with self._lock:
                self._calls.pop(call.stream, None)
                self._inboxes.pop(call.stream, None)
            context.cancel()
        if self._server.on_call is not None:
            passed = time.perf_counter() - started
            self._server.on_call(call.service, call.method, code, passed)

    def _answer(
        self, call: Call, method: Method, context: CallContext, inbox: _Inbox | None
    ) -> bytes:
        request: object
        if inbox is not None:
            request = inbox.messages(method.request)
        else:
            request = _parse(method.request, call.payload)
        response = method.handler(request, context)
        if not method.server_streaming:
            return protocol.encode_response(call.stream, response.SerializeToString())
        for item in response:
            self._send(protocol.encode_data(call.stream, item.SerializeToString()))
        return protocol.encode_response(call.stream, b"")

    def _send_error(self, stream: int, error: OrlopError) -> None:
        self._send(protocol.encode_error(stream, error))

    def _send(self, frame: bytes) -> None:
        if self._closed:
            return
        try:
            with self._send_lock:
                self._socket.sendall(frame)
        except OSError:
            self.close()  # the client has gone, or reads nothing for too long


class _Inbox:
    """Messages that a client streams to one call; lags are bounded by pausing the connection."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._paused = False

    def put(self, payload: bytes) -> None:
        self._queue.put(payload)
        if self._queue.qsize() > _QUEUE_HIGH and not self._paused:
            self._paused = True
            self._connection.pause()

    def end(self) -> None:
        self._queue.put(None)

    def messages(self, kind: type[ProtoMessage]) -> Iterator[ProtoMessage]:
        while (payload := self._queue.get()) is not None:
            if self._paused and self._queue.qsize() < _QUEUE_LOW:
                self._paused = False
                self._connection.resume()
            yield _parse(kind, payload)


def _parse(kind: type[ProtoMessage], payload: bytes) -> ProtoMessage:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.DESCRIPTOR.full_name} does not parse: {error}") from None
