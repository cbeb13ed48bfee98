"""ttrpc frames and envelopes, sans I/O.

A frame is a header of ten bytes (length and stream id, big-endian, 32 bits each; type; flags) and a
payload of up to 4 MiB; an answer may be longer for a client that has said so (`ANSWER_MAX`).
Clients use odd, growing stream ids. A request opens a stream, data frames carry further messages
either way. A unary call ends with a response. A stream ends with an empty data frame that says
"remote closed", or early with a response that carries an error; after a response without one, a
client in Go would take a further, empty message.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from orlop.errors import (
    DataLoss,
    Internal,
    InvalidArgument,
    OrlopError,
    ResourceExhausted,
    from_code,
)
from orlop.rpc.status import wire_text
from orlop.wire.ttrpc_pb2 import KeyValue, Request, Response

REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4

PAYLOAD_MAX = 4 << 20
ABSURD = 64 << 20
"""Nobody means a frame of so many bytes."""
ANSWER_MAX = "orlop-answer-max"
"""Of a request's metadata: how long a payload its client takes, in bytes, if more than usual."""
_HEADER = struct.Struct(">IIBB")
HEADER_LENGTH = _HEADER.size
_DIGITS_MAX = 20  # of a number of 64 bits


class Frame(NamedTuple):
    """One frame. `payload` is None when it was too long and has been discarded."""

    stream: int
    type: int
    flags: int
    payload: bytes | None


class FrameReader:
    """Cuts a byte stream into frames; a frame that is too long is skipped as its bytes come.

    With `absurd`, a length beyond it is taken for noise: DataLoss.
    """

    def __init__(self, absurd: int = 0, *, most: int = PAYLOAD_MAX) -> None:
        self._absurd = absurd
        self._most = most
        self._buffer = bytearray()
        self._skip = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has arrived in part."""
        return bool(self._buffer or self._skip)

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes; the frames that are now complete."""
        self._buffer += data
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if self._skip:
            dropped = min(self._skip, len(self._buffer))
            del self._buffer[:dropped]
            self._skip -= dropped
        if self._skip or len(self._buffer) < HEADER_LENGTH:
            return None
        length, stream, kind, flags = _HEADER.unpack_from(self._buffer)
        if self._absurd and length > self._absurd:
            raise DataLoss(f"frame of {length} bytes: the peer does not speak ttrpc")
        if length > self._most:
            del self._buffer[:HEADER_LENGTH]
            self._skip = length
            return Frame(stream, kind, flags, None)
        end = HEADER_LENGTH + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[HEADER_LENGTH:end])
        del self._buffer[:end]
        return Frame(stream, kind, flags, payload)


def encode(stream: int, kind: int, flags: int, payload: bytes, *, most: int = PAYLOAD_MAX) -> bytes:
    """A frame as bytes; ResourceExhausted when the payload is longer than `most`."""
    if len(payload) > most:
        raise ResourceExhausted(
            f"message of {len(payload)} bytes is longer than the {most} of ttrpc"
        )
    return _HEADER.pack(len(payload), stream, kind, flags) + payload


def encode_request(
    stream: int,
    service: str,
    method: str,
    payload: bytes,
    *,
    metadata: Mapping[str, str],
    timeout: float | None = None,
    flags: int = 0,
) -> bytes:
    """The frame that opens a stream; `timeout` in seconds."""
    request = Request(service=service, method=method, payload=payload)
    if timeout is not None:
        request.timeout_nano = max(1, int(timeout * 1e9))
    request.metadata.extend(KeyValue(key=key, value=value) for key, value in metadata.items())
    return encode(stream, REQUEST, flags, request.SerializeToString())


def encode_response(stream: int, payload: bytes, *, most: int = PAYLOAD_MAX) -> bytes:
    """The frame that ends a unary call well. Old clients insist on a status, so it has one."""
    response = Response(status=Status(), payload=payload)
    return encode(stream, RESPONSE, 0, response.SerializeToString(), most=most)


def encode_error(stream: int, error: OrlopError) -> bytes:
    """The frame that ends a stream with an error."""
    status = Status(code=error.code, message=wire_text(error))
    return encode(stream, RESPONSE, 0, Response(status=status).SerializeToString())


def encode_data(stream: int, payload: bytes, *, last: bool = False) -> bytes:
    """A further message of a stream."""
    return encode(stream, DATA, REMOTE_CLOSED if last else 0, payload)


def encode_end_of_data(stream: int) -> bytes:
    """No more messages will come from this side."""
    return encode(stream, DATA, REMOTE_CLOSED | NO_DATA, b"")


def decode_response(payload: bytes | None) -> bytes:
    """The message in a response frame; raises the error that it carries."""
    if payload is None:
        raise ResourceExhausted(f"response is longer than the {PAYLOAD_MAX} bytes of ttrpc")
    try:
        response = Response.FromString(payload)
    except DecodeError as error:
        raise Internal(f"response does not parse: {error}") from None
    if response.HasField("status") and response.status.code:
        raise from_code(response.status.code, response.status.message)
    return response.payload


class Call(NamedTuple):
    """A stream that a client has opened; `open` tells whether it will send further messages.

    An answer's payload is to have no more than `answer_max` bytes.
    """

    stream: int
    service: str
    method: str
    payload: bytes
    metadata: Mapping[str, str]
    timeout: float | None
    open: bool
    answer_max: int = PAYLOAD_MAX


class Message(NamedTuple):
    """A further message on an open stream, or, with `payload` None, just its end."""

    stream: int
    payload: bytes | None
    last: bool


class Refusal(NamedTuple):
    """Something that the server must answer with an error on that stream."""

    stream: int
    error: OrlopError


ServerEvent = Call | Message | Refusal


class ServerProtocol:
    """A server's view of one connection: bytes in, calls and messages out."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self.last_stream = 0
        """The highest stream that the client has opened."""

    @property
    def partial(self) -> bool:
        """Whether a frame has arrived in part."""
        return self._reader.partial

    def feed(self, data: bytes) -> list[ServerEvent]:
        return [self._event(frame) for frame in self._reader.feed(data)]

    def _event(self, frame: Frame) -> ServerEvent:
        if frame.payload is None:
            if frame.type == REQUEST and frame.stream % 2:
                self.last_stream = max(self.last_stream, frame.stream)
            return Refusal(
                frame.stream,
                ResourceExhausted(f"message is longer than the {PAYLOAD_MAX} bytes of ttrpc"),
            )
        if frame.type == REQUEST:
            return self._call(frame, frame.payload)
        if frame.type == DATA and frame.stream <= self.last_stream:
            payload = None if frame.flags & NO_DATA else frame.payload
            return Message(frame.stream, payload, bool(frame.flags & REMOTE_CLOSED))
        return Refusal(
            frame.stream, InvalidArgument(f"frame of type {frame.type} on stream {frame.stream}")
        )

    def _call(self, frame: Frame, payload: bytes) -> ServerEvent:
        if frame.stream % 2 == 0:
            return Refusal(frame.stream, InvalidArgument(f"stream id {frame.stream} is not odd"))
        if frame.stream <= self.last_stream:
            return Refusal(frame.stream, InvalidArgument(f"stream id {frame.stream} has been used"))
        self.last_stream = frame.stream
        try:
            request = Request.FromString(payload)
        except DecodeError as error:
            return Refusal(frame.stream, InvalidArgument(f"request does not parse: {error}"))
        metadata: dict[str, str] = {}
        for pair in request.metadata:
            metadata.setdefault(pair.key.lower(), pair.value)
        return Call(
            frame.stream,
            request.service,
            request.method,
            request.payload,
            metadata,
            request.timeout_nano / 1e9 if request.timeout_nano > 0 else None,
            bool(frame.flags & REMOTE_OPEN),
            _answer_max(metadata.get(ANSWER_MAX, "")),
        )


def _answer_max(asked: str) -> int:
    if not asked.isdecimal() or len(asked) > _DIGITS_MAX:
        return PAYLOAD_MAX
    return max(PAYLOAD_MAX, min(int(asked), ABSURD))
