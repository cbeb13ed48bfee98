"""The server's side of HTTP/2 (RFC 9113), sans I/O, as far as gRPC needs it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orlop.errors import InvalidArgument
from orlop.rpc.grpc.hpack import HEADERS_MAX, Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, _PRIORITY, RST_STREAM, SETTINGS = range(5)
_PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, ACK, END_HEADERS, _PADDED, _HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE, _MAX_HEADER_LIST_SIZE = 4, 5, 6

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0, 1, 3, 6
STREAM_CLOSED, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 5, 7, 9, 11

DEFAULT_WINDOW, WINDOW_MAX = 65_535, 2**31 - 1
DEFAULT_FRAME = 16_384
FRAME_MAX = 1 << 20
"""Bytes of payload in a frame that we take."""
STREAM_WINDOW = 4 << 20
"""Bytes that a client may send on a stream before they are read."""
CONNECTION_WINDOW = 64 << 20

_HEAD = 9
_LENGTHS = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


class Fault(Exception):
    """The connection cannot go on; `code` tells the peer why (RFC 9113, 7)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that the client has opened; the first of two headers of one name counts."""

    stream: int
    headers: Mapping[str, str]
    ended: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream. `size` is what they count for in flow control."""

    stream: int
    data: bytes
    size: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The client has broken off a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Credit:
    """We may send more, on a stream or, as stream 0, on the connection."""

    stream: int
    size: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the client wants from now on; None where it does not say."""

    window: int | None
    frame: int | None


Event = Opened | Data | Reset | Credit | Settings


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return b"%b%c%c%b%b" % (
        len(payload).to_bytes(3),
        kind,
        flags,
        stream.to_bytes(4),
        payload,
    )


def greeting() -> bytes:
    """What a server says first: its settings, and a large window for all streams together."""
    settings = (
        (_INITIAL_WINDOW_SIZE, STREAM_WINDOW),
        (_MAX_FRAME_SIZE, FRAME_MAX),
        (_MAX_HEADER_LIST_SIZE, HEADERS_MAX),
    )
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in settings)) + credit(
        0, CONNECTION_WINDOW - DEFAULT_WINDOW
    )


def credit(stream: int, size: int) -> bytes:
    """The frame that lets the client send more."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def go_away(last: int, code: int, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code) + text.encode())


class ServerProtocol:
    """One connection: bytes in, events out, and `take_replies` for what must be answered at once.

    `last` is the highest stream that the client has opened.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False
        self._settled = False
        self._decoder = Decoder()
        self._block: bytearray | None = None
        self._block_head = (0, 0)
        self._replies = bytearray()
        self.last = 0

    def take_replies(self) -> bytes:
        """Frames to be sent, perhaps none."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def feed(self, data: bytes) -> Iterator[Event]:
        """Add received bytes; what they tell. Raises Fault, after what came before it."""
        self._buffer += data
        position = 0
        try:
            if not self._greeted:
                if self._buffer[: len(PREFACE)] != PREFACE[: len(self._buffer)]:
                    raise Fault(PROTOCOL_ERROR, "this is not HTTP/2")
                if len(self._buffer) < len(PREFACE):
                    return
                self._greeted, position = True, len(PREFACE)
            while position + _HEAD <= len(self._buffer):
                start = position + _HEAD
                end = start + int.from_bytes(self._buffer[position : position + 3])
                if end - start > FRAME_MAX:
                    raise Fault(FRAME_SIZE_ERROR, "frame is too long")
                if end > len(self._buffer):
                    return
                kind, flags = self._buffer[position + 3], self._buffer[position + 4]
                stream = int.from_bytes(self._buffer[position + 5 : start]) & WINDOW_MAX
                payload = bytes(memoryview(self._buffer)[start:end])
                position = end
                if (event := self._frame(kind, flags, stream, payload)) is not None:
                    yield event
        finally:
            del self._buffer[:position]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Event | None:
        if (self._block is not None) != (kind == CONTINUATION):
            raise Fault(PROTOCOL_ERROR, "header block is interrupted")
        if not self._settled and kind != SETTINGS:
            raise Fault(PROTOCOL_ERROR, "settings must come first")
        if len(payload) != _LENGTHS.get(kind, len(payload)):
            raise Fault(FRAME_SIZE_ERROR, f"frame of kind {kind} is not of {_LENGTHS[kind]} bytes")
        if stream and kind in _OF_CONNECTION:
            raise Fault(PROTOCOL_ERROR, f"frame of kind {kind} is of no stream")
        match kind:
            case 0:
                return self._data(flags, stream, payload)
            case 1:
                return self._headers(flags, stream, payload)
            case 9:
                return self._continuation(flags, stream, payload)
            case 3:
                _check_stream(stream, self.last)
                return Reset(stream)
            case 4:
                return self._settings(flags, payload)
            case 5:
                raise Fault(PROTOCOL_ERROR, "clients do not push")
            case 6:
                if not flags & ACK:
                    self._replies += frame(PING, ACK, 0, payload)
            case 8:
                return self._credit(stream, payload)
        return None  # priorities, farewells, and what is not known

    def _data(self, flags: int, stream: int, payload: bytes) -> Event:
        _check_stream(stream, self.last)
        data = _unpadded(payload) if flags & _PADDED else payload
        return Data(stream, data, len(payload), bool(flags & END_STREAM))

    def _headers(self, flags: int, stream: int, payload: bytes) -> Event | None:
        if stream % 2 == 0:
            raise Fault(PROTOCOL_ERROR, "clients open odd streams")
        if flags & _PADDED:
            payload = _unpadded(payload)
        if flags & _HAS_PRIORITY:
            if len(payload) < 5:
                raise Fault(FRAME_SIZE_ERROR, "headers are too short")
            payload = payload[5:]
        if len(payload) > HEADERS_MAX:
            raise Fault(ENHANCE_YOUR_CALM, "headers are too long")
        if not flags & END_HEADERS:
            self._block, self._block_head = bytearray(payload), (flags, stream)
            return None
        return self._opened(flags, stream, payload)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> Event | None:
        assert self._block is not None
        opening, expected = self._block_head
        if stream != expected:
            raise Fault(PROTOCOL_ERROR, "header block is interrupted")
        self._block += payload
        if len(self._block) > HEADERS_MAX:
            raise Fault(ENHANCE_YOUR_CALM, "headers are too long")
        if not flags & END_HEADERS:
            return None
        block, self._block = bytes(self._block), None
        return self._opened(opening, stream, block)

    def _opened(self, flags: int, stream: int, block: bytes) -> Event:
        try:
            fields = self._decoder.decode(block)
        except InvalidArgument as error:
            raise Fault(COMPRESSION_ERROR, error.message) from None
        ended = bool(flags & END_STREAM)
        if stream <= self.last:  # trailers, in which a gRPC client has nothing to say
            return Data(stream, b"", 0, ended)
        self.last = stream
        headers: dict[str, str] = {}
        for name, value in fields:
            headers.setdefault(name, value)
        return Opened(stream, headers, ended)

    def _settings(self, flags: int, payload: bytes) -> Event | None:
        self._settled = True
        if len(payload) % _SETTING.size or (flags & ACK and payload):
            raise Fault(FRAME_SIZE_ERROR, "settings are of six bytes each")
        if flags & ACK:
            return None
        wanted = dict(_SETTING.iter_unpack(payload))
        window, size = wanted.get(_INITIAL_WINDOW_SIZE), wanted.get(_MAX_FRAME_SIZE)
        if window is not None and window > WINDOW_MAX:
            raise Fault(FLOW_CONTROL_ERROR, "window is too large")
        if size is not None and not DEFAULT_FRAME <= size < 1 << 24:
            raise Fault(PROTOCOL_ERROR, "frames cannot be of that size")
        self._replies += frame(SETTINGS, ACK, 0)
        return Settings(window, size)

    def _credit(self, stream: int, payload: bytes) -> Event:
        if stream:
            _check_stream(stream, self.last)
        (size,) = _NUMBER.unpack(payload)
        if not size & WINDOW_MAX:
            raise Fault(PROTOCOL_ERROR, "window update of nothing")
        return Credit(stream, size & WINDOW_MAX)


def _check_stream(stream: int, last: int) -> None:
    if not stream or stream > last:
        raise Fault(PROTOCOL_ERROR, f"stream {stream} is not open")


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Fault(PROTOCOL_ERROR, "padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
