"""Events to the daemon, in order, and again until it has taken them.

They go by ttrpc to containerd.services.events.ttrpc.v1.Events/Forward. While the daemon is away
they wait here, and are tried again after a growing delay or when a daemon connects to this shim.
With nothing to send there is nothing to wake up for.
"""

from __future__ import annotations

import socket
import time
from collections import deque

from google.protobuf.message import Message

from orlop.errors import OrlopError, Unavailable
from orlop.rpc.context import NAMESPACE_HEADER_TTRPC
from orlop.rpc.convert import pack, timestamp
from orlop.rpc.ttrpc import protocol
from orlop.shim.log import Log
from orlop.shim.loop import Loop, Promise, Task
from orlop.wire.services.events_ttrpc_pb2 import ForwardRequest

SERVICE = "containerd.services.events.ttrpc.v1.Events"
MAX_QUEUE = 2048
"""Events kept while the daemon is away; beyond that the oldest are lost."""
FIRST_DELAY = 0.05
MAX_DELAY = 10.0
ANSWER_LIMIT = 10.0
"""Seconds that a daemon may take to accept one event."""
CHUNK = 64 * 1024


class Publisher:
    """The queue of events for the daemon at `address` (a Unix socket's path, or unix://PATH)."""

    def __init__(self, loop: Loop, address: str, namespace: str, log: Log) -> None:
        self._loop = loop
        self._address = address.removeprefix("unix://")
        self._namespace = namespace
        self._log = log
        self._queue: deque[ForwardRequest] = deque()
        self._sending: Task[None] | None = None
        self._pause: Promise[None] | None = None
        self._socket: socket.socket | None = None
        self._stream = 1

    @property
    def idle(self) -> bool:
        """Whether everything is sent."""
        return not self._queue and (self._sending is None or self._sending.done)

    def publish(self, topic: str, message: Message) -> None:
        """Queue an event; never blocks. Without an address there is nobody to tell."""
        if not self._address:
            return
        request = ForwardRequest()
        envelope = request.envelope
        envelope.timestamp.CopyFrom(timestamp(time.time_ns()))
        envelope.namespace = self._namespace
        envelope.topic = topic
        envelope.event.CopyFrom(pack(message))
        self._queue.append(request)
        if len(self._queue) > MAX_QUEUE:
            lost = self._queue.popleft()
            self._log.error("event lost: the daemon is away", topic=lost.envelope.topic)
        if self._sending is None or self._sending.done:
            self._sending = self._loop.spawn(self._send_all())

    def retry_now(self) -> None:
        """A daemon is there (again): do not wait for the rest of the delay."""
        if self._pause is not None:
            self._pause.resolve(None)

    async def drain(self, seconds: float) -> None:
        """Wait until everything is sent, or the time is over."""
        if self._sending is not None:
            self.retry_now()
            await self._loop.within(seconds, self._sending)

    async def _send_all(self) -> None:
        delay = FIRST_DELAY
        while self._queue:
            request, reused = self._queue[0], self._socket is not None
            try:
                await self._send(request)
            except OSError as error:
                self._disconnect()
                if reused:
                    continue  # the daemon has closed an idle connection
                self._log.debug(f"event not sent yet: {error}")
                await self._wait(delay)
                delay = min(delay * 2, MAX_DELAY)
                continue
            delay = FIRST_DELAY
            if self._queue and self._queue[0] is request:
                self._queue.popleft()

    async def _wait(self, seconds: float) -> None:
        self._pause = self._loop.timer(seconds)
        await self._pause
        self._pause = None

    async def _send(self, forward: ForwardRequest) -> None:
        """Hand over one event; raises OSError when the daemon is away."""
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        fd, stream = self._socket.fileno(), self._stream
        self._stream += 2
        frame = protocol.encode_request(
            stream,
            SERVICE,
            "Forward",
            forward.SerializeToString(),
            metadata={NAMESPACE_HEADER_TTRPC: self._namespace},
            timeout=ANSWER_LIMIT,
        )
        await self._loop.write(fd, frame)
        answer = self._loop.spawn(self._answer(fd, stream))
        if not await self._loop.within(ANSWER_LIMIT, answer):
            answer.cancel()
            raise TimeoutError("no answer from the daemon")
        try:
            protocol.decode_response(answer.result())
        except Unavailable as error:
            raise ConnectionError(str(error)) from error
        except OrlopError as error:
            self._log.error(f"event refused: {error}", topic=forward.envelope.topic)

    async def _answer(self, fd: int, stream: int) -> bytes | None:
        reader = protocol.FrameReader()
        while data := await self._loop.read(fd, CHUNK):
            for frame in reader.feed(data):
                if frame.type == protocol.RESPONSE and frame.stream == stream:
                    return frame.payload
        raise ConnectionError("the daemon has closed the connection")

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.connect(self._address)
        self._stream = 1

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
