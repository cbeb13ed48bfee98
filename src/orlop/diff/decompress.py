"""Decompression by what the bytes are, whatever the media type says: gzip, zstd or plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import zstandard
from isal import isal_zlib

from orlop.errors import InvalidArgument, ResourceExhausted
from orlop.tar import zeros

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2).
_ZSTD_SKIPPABLE = frozenset(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))

# No name in UTF-8 begins like this, and so no tar does.
_UNSUPPORTED = {b"\xfd7zX": "xz", b"\x04\x22\x4d\x18": "lz4"}

_OUTPUT = zeros.LONGEST  # larger pieces leave the cache before they are hashed and written
_ZSTD_INPUT = 4096
_ZSTD_WINDOW = 1 << 27
# A ratio says nothing about little data.
_RATIO_FROM = 1 << 30

Read = Callable[[], bytes]


def decompress(
    read: Read, *, max_size: int, max_ratio: int, max_zeros: int = 0, what: str = "layer"
) -> Iterator[bytes]:
    """The plain bytes of what `read` gives piece by piece (b"" ends it).

    Concatenated members and frames are one stream; errors say `what` it is. Raises InvalidArgument
    for damaged or cut-off data, ResourceExhausted beyond `max_size` bytes, or beyond 1 GiB at more
    than `max_ratio` to 1. For who makes holes of them, up to `max_zeros` bytes are beside that
    which come as pieces of zeros.
    """
    guard = _Guard(read, max_size, max_ratio, max_zeros, what)
    head = guard.read()
    while 0 < len(head) < 4 and (more := guard.read()):
        head += more
    if head.startswith(GZIP_MAGIC):
        chunks = _members(_GZIP, head, guard.read, what)
    elif head.startswith(ZSTD_MAGIC) or head[:4] in _ZSTD_SKIPPABLE:
        chunks = _members(_ZSTD, head, guard.read, what)
    elif head.startswith(tuple(_UNSUPPORTED)):
        name = next(name for magic, name in _UNSUPPORTED.items() if head.startswith(magic))
        raise InvalidArgument(f"{what} is compressed by {name}, not by gzip or zstd")
    else:
        chunks = _plain(head, guard.read)
    for chunk in chunks:
        guard.count(chunk)
        yield chunk


class _Guard:
    """Counts what goes in and comes out."""

    def __init__(
        self, read: Read, max_size: int, max_ratio: int, max_zeros: int, what: str
    ) -> None:
        self._read = read
        self._max_size = max_size
        self._max_ratio = max_ratio
        self._max_zeros = max_zeros
        self._what = what
        self._in = self._out = self._zeros = 0

    def read(self) -> bytes:
        data = self._read()
        self._in += len(data)
        return data

    def count(self, chunk: bytes) -> None:
        if self._max_zeros and zeros.are_hole(chunk):
            self._zeros += len(chunk)
            if self._zeros > self._max_zeros:
                raise ResourceExhausted(
                    f"{self._what} unpacks to more than the {self._max_zeros} bytes of zeros "
                    "that the daemon allows"
                )
            return
        self._out += len(chunk)
        if self._out > self._max_size:
            raise ResourceExhausted(
                f"{self._what} unpacks to more than the {self._max_size} bytes "
                "that the daemon allows"
            )
        if self._out > _RATIO_FROM and self._out > self._in * self._max_ratio:
            raise ResourceExhausted(
                f"{self._what} unpacks to more than {self._max_ratio} times its size: "
                "it looks like a decompression bomb"
            )


def _plain(head: bytes, read: Read) -> Iterator[bytes]:
    while head:
        yield head
        head = read()


class _Member(Protocol):
    """One gzip member or zstd frame being decompressed."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Codec:
    """How to begin a member, and to get its output from a piece of input in bounded pieces."""

    name: str
    begin: Callable[[], Any]
    inflate: Callable[[Any, bytes], Iterator[bytes]]


def _members(codec: _Codec, data: bytes, read: Read, what: str) -> Iterator[bytes]:
    """Member after member; zeros after the last one are padding."""
    member: _Member | None = None
    while data := data or read():
        if member is None:
            if not data.strip(b"\0"):
                data = b""
                continue
            member = codec.begin()
        try:
            yield from codec.inflate(member, data)
        except (isal_zlib.error, zstandard.ZstdError) as error:  # type: ignore[misc]
            raise InvalidArgument(f"{what} has damaged {codec.name} data: {error}") from None
        data = b""
        if member.eof:
            data, member = member.unused_data, None
    if member is not None:
        raise InvalidArgument(f"{what} breaks off in the middle of its {codec.name} data")


def _inflate_gzip(member: Any, data: bytes) -> Iterator[bytes]:
    chunk = member.decompress(data, _OUTPUT)
    while chunk:
        yield chunk
        chunk = b"" if member.eof else member.decompress(member.unconsumed_tail, _OUTPUT)


class _Frame:
    """A zstd frame, fed in small pieces: four bytes may stand for 128 KiB of output."""

    def __init__(self) -> None:
        codec = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = codec.decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._rest

    def inflate(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_INPUT):
            if self._frame.eof:
                self._rest = data[start:]
                return
            chunk = self._frame.decompress(data[start : start + _ZSTD_INPUT])
            for at in range(0, len(chunk), _OUTPUT):
                yield chunk[at : at + _OUTPUT]


_GZIP = _Codec("gzip", lambda: isal_zlib.decompressobj(wbits=16 + 15), _inflate_gzip)
_ZSTD = _Codec("zstd", _Frame, _Frame.inflate)
