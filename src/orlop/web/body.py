"""The body of a request: of a known length, or in chunks (RFC 9112, sections 6 and 7)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping

_AT_ONCE = 256 << 10
_LINE_MAX = 4096
_TRAILERS_MAX = 64
_LENGTH = re.compile(r"[0-9]{1,19}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class BadRequest(Exception):
    """A request that is framed wrongly or broken off: the connection cannot go on."""


class Body:
    """Bytes to come. `length` is -1 when only their end will tell."""

    def __init__(self, stream: io.BufferedIOBase, length: int) -> None:
        self._stream = stream
        self.length = length
        self._left = length
        self.finished = length == 0

    @classmethod
    def of(cls, stream: io.BufferedIOBase, headers: Mapping[str, str]) -> Body:
        """Raises BadRequest for headers that leave open where the body ends."""
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None:
            if length is not None or coding.strip().lower() != "chunked":
                raise BadRequest("a body is either chunked or has a length")
            return cls(stream, -1)
        if length is None:
            return cls(stream, 0)
        if not _LENGTH.fullmatch(length):
            raise BadRequest(f'"{length[:40]}" is not a length')
        return cls(stream, int(length))

    def pieces(self) -> Iterator[bytes]:
        """The bytes as they come; raises BadRequest when the client breaks off."""
        yield from self._chunks() if self.length < 0 else self._counted()
        self.finished = True

    def read(self, limit: int) -> bytes | None:
        """All of it, or None when it is more than `limit` bytes."""
        if self.length > limit:
            return None
        whole = bytearray()
        for piece in self.pieces():
            whole += piece
            if len(whole) > limit:
                return None
        return bytes(whole)

    def _counted(self) -> Iterator[bytes]:
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := self._chunk_size():
            while size:
                piece = self._some(size)
                size -= len(piece)
                yield piece
            if self._line() not in (b"\r\n", b"\n"):
                raise BadRequest("a chunk is longer than it says")
        for _ in range(_TRAILERS_MAX):
            if self._line() in (b"\r\n", b"\n"):
                return
        raise BadRequest("too many trailers")

    def _chunk_size(self) -> int:
        found = _CHUNK_SIZE.fullmatch(self._line())
        if found is None:
            raise BadRequest("a chunk has no size")
        return int(found[1], 16)

    def _line(self) -> bytes:
        line = self._stream.readline(_LINE_MAX)
        if not line.endswith(b"\n"):
            raise BadRequest("a line of the body does not end")
        return line

    def _some(self, most: int) -> bytes:
        piece = self._stream.read1(min(most, _AT_ONCE))
        if not piece:
            raise BadRequest("the client broke off")
        return piece
