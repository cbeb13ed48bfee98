"""One blob by one connection, or by several where a single one is slow.

Many registries and the networks before them limit each connection. Where the first one waits for
bytes more than it should, the rest of a large blob comes in parts, side by side.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from orlop import tracing
from orlop.errors import Cancelled
from orlop.oci.descriptor import Descriptor
from orlop.registry.blob import BlobStream, NoRanges
from orlop.registry.sources import Sources

_AT_ONCE = 4
_PART = 2 << 20
# What one connection is given to show how fast it is, and what then counts as slow.
_TASTE = 2 << 20
_SLOW = 20e6  # bytes a second, while waiting for them
# Less than that is not worth more connections.
_REST_MIN = 8 << 20


class Download:
    """A blob's bytes from `offset` on, in order; at most a few parts wait in memory.

    Iterate once, and `close`. Raises what `BlobStream` raises.
    """

    def __init__(self, sources: Sources, wanted: Descriptor, offset: int) -> None:
        self._sources = sources
        self._wanted = wanted
        self._offset = offset
        self._stream = BlobStream(sources, wanted, offset)
        self._given_up = False
        self._chunks: Generator[bytes, None, None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._chunks = self._all()
        return self._chunks

    def _all(self) -> Generator[bytes, None, None]:
        waited, began = 0.0, self._offset
        chunks = iter(self._stream)
        while True:
            asked = time.monotonic()
            chunk = next(chunks, None)
            waited += time.monotonic() - asked
            if chunk is None:
                return
            self._offset += len(chunk)
            yield chunk
            if self._is_slow(self._offset - began, waited):
                break
        self._stream.close()
        yield from self._side_by_side()

    def _is_slow(self, count: int, seconds: float) -> bool:
        rest = self._wanted.size - self._offset
        return count >= _TASTE and rest >= _REST_MIN and count < seconds * _SLOW

    def _side_by_side(self) -> Iterator[bytes]:
        try:
            yield from self._parts()
        except NoRanges:
            self._stream = BlobStream(self._sources, self._wanted, self._offset)
            yield from self._stream

    def _parts(self) -> Iterator[bytes]:
        parts: deque[Future[deque[bytes]]] = deque()
        following = self._offset
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="part") as pool:
            try:
                while self._offset < self._wanted.size:
                    while following < self._wanted.size and len(parts) <= _AT_ONCE:
                        end = min(following + _PART, self._wanted.size)
                        parts.append(pool.submit(tracing.carry(self._part), following, end))
                        following = end
                    chunks = parts.popleft().result()
                    while chunks:
                        chunk = chunks.popleft()
                        self._offset += len(chunk)
                        yield chunk
            finally:
                self._given_up = True
                for part in parts:
                    part.cancel()

    def _part(self, start: int, end: int) -> deque[bytes]:
        """The chunks as they came: to join them would hold them twice."""
        stream = BlobStream(self._sources, self._wanted, start, end)
        chunks: deque[bytes] = deque()
        try:
            for chunk in stream:
                if self._given_up:
                    raise Cancelled
                chunks.append(chunk)
        finally:
            stream.close()
        return chunks

    def close(self) -> None:
        """Let go of the connections; parts under way are given up."""
        self._given_up = True
        if self._chunks is not None:
            self._chunks.close()
        self._stream.close()
