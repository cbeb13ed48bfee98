"""The ttrpc server of a shim: many connections, many calls on each, one thread.

Every call runs as a task of its own, so a slow runc holds up nobody and a `Wait` costs a few
hundred bytes. A call that changes something goes on when its client has gone; a `Wait` ends then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from orlop.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    OrlopError,
    Unknown,
)
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call
from orlop.shim.files import remove
from orlop.shim.loop import Loop, Task
from orlop.shim.rest import Busy, Luggage

CHUNK = 64 * 1024
BACKLOG = 1024 * 1024
"""Bytes of unread answers from which on no more requests of that client are read."""
PASSIVE = ("Wait", "WaitSandbox")
"""The methods that only look on: their calls end with their client or their deadline."""


class Rpc(NamedTuple):
    """What serves one method."""

    request: type[Message]
    handler: Callable[[Any], Awaitable[Message]]


Find = Callable[[str, str], Rpc]
"""From the names of a service and a method to what serves it; raises Unimplemented."""


class Server:
    """Serves the methods that `find` knows; `on_connect` is told of every new client."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        find: Find,
        *,
        on_connect: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._find = find
        self._on_connect = on_connect
        self._connections: set[Connection] = set()
        listener.setblocking(False)
        self._accepting = loop.spawn(self._accept())

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` takes up again; Busy while a call is under way that is not passive."""
        connections = [each.freeze(luggage) for each in self._connections]
        return {"listener": luggage.put(self._listener.fileno()), "connections": connections}

    def thaw(self, luggage: Luggage, state: dict[str, Any]) -> None:
        """Take up the connections that were frozen; the listener came with the constructor."""
        for each in state["connections"]:
            self._add(luggage.claim(each["fd"])).thaw(each)

    def _add(self, fd: int) -> Connection:
        connection = Connection(self._loop, fd, self._find, self._connections.discard)
        self._connections.add(connection)
        return connection

    def stop_accepting(self) -> None:
        """Remove the socket: whoever dials now is told at once that nobody is there."""
        self._accepting.cancel()
        path = self._listener.getsockname()
        self._listener.close()
        if path and isinstance(path, str):
            remove(path)

    async def flush(self) -> None:
        """Wait until every answer given so far is written."""
        for connection in list(self._connections):
            await connection.flush()

    async def _accept(self) -> None:
        while True:
            await self._loop.readable(self._listener.fileno())
            try:
                # Without the socket object and its enums, whose memory every shim would pay for.
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]
            except OSError as error:  # gone before it was accepted, or there is no room
                await self._loop.after_failed_accept(error)
                continue
            os.set_blocking(fd, False)
            self._add(fd)
            self._on_connect()


class Connection:
    """One client. A frame that makes no sense ends the connection, and this one only."""

    def __init__(
        self, loop: Loop, fd: int, find: Find, on_close: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._find = find
        self._on_close = on_close
        self._out = bytearray()
        self._writing: Task[None] | None = None
        self._calls: dict[int, Call] = {}
        self._waiting: set[Task[None]] = set()
        self._reader = protocol.ServerProtocol()
        self._closed = False
        loop.spawn(self._serve())

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        if self._out or self._reader.partial or (self._writing and not self._writing.done):
            raise Busy
        calls = []
        for call in self._calls.values():
            if call.method not in PASSIVE or call.timeout is not None:
                raise Busy
            calls.append((call.stream, call.service, call.method, call.payload))
        fd = luggage.put(self._fd)
        return {"fd": fd, "last_stream": self._reader.last_stream, "calls": calls}

    def thaw(self, state: dict[str, Any]) -> None:
        self._reader.last_stream = state["last_stream"]
        for stream, service, method, payload in state["calls"]:
            self._begin(Call(stream, service, method, payload, {}, None, open=False))

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
            os.close(self._fd)
            self._on_close(self)

    async def _read_frames(self) -> None:
        while data := await self._loop.read(self._fd, CHUNK):
            for event in self._reader.feed(data):
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
            rpc = self._find(call.service, call.method)
            request = rpc.request.FromString(call.payload)
        except DecodeError:
            self._answer(call.stream, InvalidArgument("request does not parse"))
            return
        except OrlopError as error:
            self._answer(call.stream, error)
            return
        running = self._loop.spawn(self._call(call, rpc, request))
        running.trace = call.metadata.get("traceparent", "")
        self._calls[call.stream] = call
        if call.method in PASSIVE:
            self._waiting.add(running)
            running.subscribe(lambda _: self._waiting.discard(running))
            if call.timeout is not None:
                self._loop.spawn(self._limit(call, running))

    async def _call(self, call: Call, rpc: Rpc, request: Message) -> None:
        try:
            answer: Message | OrlopError = await rpc.handler(request)
        except OrlopError as error:
            answer = error
        except OSError as error:
            answer = Unknown(str(error).lower())
        except Exception as error:
            self._answer(call.stream, Internal(f"{call.method}: {error!r}"))
            raise
        finally:
            self._calls.pop(call.stream, None)
        self._answer(call.stream, answer)

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
                await self._loop.write(self._fd, data)
        except OSError:
            self._out.clear()  # the client is gone; reading will tell
