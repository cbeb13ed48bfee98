"""How gRPC puts calls and messages into HTTP/2 (the project's PROTOCOL-HTTP2 document)."""

from __future__ import annotations

import re
from urllib.parse import quote

from orlop.errors import OrlopError, ResourceExhausted, Unimplemented
from orlop.rpc.grpc.hpack import encode
from orlop.rpc.status import wire_text

MESSAGE_MAX = 16 << 20
_PREFIX = 5
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Printable characters but "%" stand for themselves.
_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_TYPE = "application/grpc"
_TYPES = (f"{_TYPE}+", f"{_TYPE};")
_START = (
    (":status", "200"),
    ("content-type", _TYPE),
    ("grpc-accept-encoding", "identity"),  # who compresses learns why it is refused
)
RESPONSE_HEADERS = encode(_START)
GOOD_TRAILERS = encode([("grpc-status", "0")])
NOT_GRPC = encode([(":status", "415")])


def error_trailers(error: OrlopError, *, started: bool) -> bytes:
    """The header block that ends a call with an error; `started` if headers have gone before."""
    status = (
        ("grpc-status", str(error.code)),
        ("grpc-message", quote(wire_text(error), safe=_SAFE)),
    )
    return encode(status if started else (*_START, *status))


def is_grpc(content_type: str) -> bool:
    """Whether it is gRPC's own, not the one for browsers; what may follow is left aside."""
    return content_type == _TYPE or content_type.startswith(_TYPES)


def pack(message: bytes) -> bytes:
    """A message with its prefix; ResourceExhausted when it is too long."""
    if len(message) > MESSAGE_MAX:
        raise ResourceExhausted(
            f"message of {len(message)} bytes is longer than the {MESSAGE_MAX} of gRPC"
        )
    return b"\0" + len(message).to_bytes(4) + message


def timeout(text: str) -> float | None:
    """Seconds of a `grpc-timeout` header; None without a usable one."""
    match = _TIMEOUT.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


class MessageReader:
    """Cuts the data of a stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; the messages that are now complete.

        Raises ResourceExhausted for one that is too long, as soon as its length is known, and
        Unimplemented for one that is compressed, which nobody has agreed to.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= _PREFIX:
            if self._buffer[0]:
                raise Unimplemented("compressed messages")
            end = _PREFIX + int.from_bytes(self._buffer[1:_PREFIX])
            if end - _PREFIX > MESSAGE_MAX:
                raise ResourceExhausted(
                    f"message of {end - _PREFIX} bytes is longer than the {MESSAGE_MAX} of gRPC"
                )
            if len(self._buffer) < end:
                break
            found.append(bytes(memoryview(self._buffer)[_PREFIX:end]))
            del self._buffer[:end]
        return found
