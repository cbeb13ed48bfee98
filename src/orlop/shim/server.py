"""The ttrpc server of a shim: many connections, many calls on each, one thread.

Every call runs as a task of its own, so a slow runc holds up nobody and a `Wait` costs a few
hundred bytes. A call that changes something goes on when its client has gone; a `Wait` ends then.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from orlop.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    OrlopError,
    Unimplemented,
    Unknown,
)
from orlop.rpc.table import Method, Service, ServiceTable
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call
from orlop.shim.loop import Loop, Task

CHUNK = 64 * 1024
BACKLOG = 1024 * 1024
"""Bytes of unread answers from which on no more requests of that client are read."""
PASSIVE = "Wait"
"""The method that only looks on: its calls end with their client or their deadline."""


class Server:
    """Serves `service` under each of `names`; `on_connect` is told of every new client."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        service: Service,
        names: Sequence[str],
        *,
        on_connect: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._table = ServiceTable(service)
        self._own_name = service.DESCRIPTOR.full_name
        self._names = frozenset(names)
        self._on_connect = on_connect
        self._connections: set[Connection] = set()
        listener.setblocking(False)
        self._accepting = loop.spawn(self._accept())

    def stop_accepting(self) -> None:
        """Remove the socket: whoever dials now is told at once that nobody is there."""
        self._accepting.cancel()
        path = self._listener.getsockname()
        self._listener.close()
        if path and isinstance(path, str):
            Path(path).unlink(missing_ok=True)

    async def flush(self) -> None:
        """Wait until every answer given so far is written."""
        for connection in list(self._connections):
            await connection.flush()

    def find(self, call: Call) -> Method:
        """The method that a call names; Unimplemented if there is none."""
        if call.service not in self._names:
            raise Unimplemented(f"service {call.service}")
        method = self._table.find(self._own_name, call.method)
        if method is None:
            raise Unimplemented(f"method {call.method}")
        return method

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    async def _accept(self) -> None:
        while True:
            await self._loop.readable(self._listener.fileno())
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                continue  # gone before it was accepted
            accepted.setblocking(False)
            self._connections.add(Connection(self._loop, self, accepted))
            self._on_connect()


class Connection:
    """One client. A frame that makes no sense ends the connection, and this one only."""

    def __init__(self, loop: Loop, server: Server, stream: socket.socket) -> None:
        self._loop = loop
        self._server = server
        self._socket = stream
        self._out = bytearray()
        self._writing: Task[None] | None = None
        self._waiting: set[Task[None]] = set()
        self._closed = False
        loop.spawn(self._serve())

    async def flush(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _serve(self) -> None:
        try:
            await self._read_frames()
        finally:
            self._closed = True
            for call in list(self._waiting):
                call.cancel()
            if self._writing is not None:
                self._writing.cancel()
            self._socket.close()
            self._server.forget(self)

    async def _read_frames(self) -> None:
        reader = protocol.ServerProtocol()
        while data := await self._loop.read(self._socket.fileno(), CHUNK):
            for event in reader.feed(data):
                self._take(event)
            if len(self._out) > BACKLOG:
                await self.flush()

    def _take(self, event: protocol.ServerEvent) -> None:
        if isinstance(event, protocol.Refusal):
            self._answer(event.stream, event.error)
        elif isinstance(event, Call):
            self._begin(event)

    def _begin(self, call: Call) -> None:
        try:
            method = self._server.find(call)
            request = method.request.FromString(call.payload)
        except DecodeError:
            self._answer(call.stream, InvalidArgument("request does not parse"))
            return
        except OrlopError as error:
            self._answer(call.stream, error)
            return
        running = self._loop.spawn(self._call(call.stream, method, request))
        if method.name == PASSIVE:
            self._waiting.add(running)
            running.subscribe(lambda _: self._waiting.discard(running))
            if call.timeout is not None:
                self._loop.spawn(self._limit(call, running))

    async def _call(self, stream: int, method: Method, request: Message) -> None:
        try:
            answer: Message | OrlopError = await method.handler(request)
        except OrlopError as error:
            answer = error
        except OSError as error:
            answer = Unknown(str(error).lower())
        except Exception as error:
            self._answer(stream, Internal(f"{method.name}: {error!r}"))
            raise
        self._answer(stream, answer)

    async def _limit(self, call: Call, running: Task[None]) -> None:
        """End a passive call at its deadline."""
        if not await self._loop.within(call.timeout or 0.0, running):
            running.cancel()
            self._answer(call.stream, DeadlineExceeded())

    def _answer(self, stream: int, answer: Message | OrlopError) -> None:
        if isinstance(answer, OrlopError):
            self._send(protocol.encode_error(stream, answer))
        else:
            self._send(protocol.encode_response(stream, answer.SerializeToString()))

    def _send(self, frame: bytes) -> None:
        if self._closed:
            return
        self._out += frame
        if self._writing is None or self._writing.done:
            self._writing = self._loop.spawn(self._write())

    async def _write(self) -> None:
        try:
            while self._out:
                data = bytes(self._out)
                self._out.clear()
                await self._loop.write(self._socket.fileno(), data)
        except OSError:
            self._out.clear()  # the client is gone; reading will tell
