"""The maps of sparse files: what an archive has of one, and where that belongs (GNU tar, "Storing
Sparse Files"). The rest of the file is zeros.

Old GNU archives have a map in the header and blocks behind it, PAX 0.0 and 0.1 in an extended
header, and 1.0 in front of the content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from orlop.tar.fields import Malformed, checked_size, decimal, number

Segments = Sequence[tuple[int, int]]
"""Offsets and lengths, in order."""

PREFIX = b"GNU.sparse."
MAP = PREFIX + b"map"
PAIR = (PREFIX + b"offset", PREFIX + b"numbytes")
"""The records of PAX 0.0, which are in a header again and again, in turns."""

_BLOCK = 512
_NAME, _MAJOR, _MINOR = PREFIX + b"name", PREFIX + b"major", PREFIX + b"minor"
_SIZES = (PREFIX + b"size", PREFIX + b"realsize")
_GNU = b"ustar  \0"
_MOST = 1 << 16  # more are no file that somebody has, but somebody's try to fill the memory

NextBlock = Callable[[], bytes]


def in_header(header: bytes, more: NextBlock) -> tuple[int, Segments]:
    """The size of a file of GNU's old type, and its map, for which `more` gives the next blocks."""
    if header[257:265] != _GNU:
        raise Malformed("has a sparse file in a format that is not GNU's")
    segments = list(_entries(header[386:482]))
    block, at = header, 482
    while block[at]:
        block, at = more(), 504
        segments += _entries(block[:at])
        _check_count(len(segments))
    return checked_size(number(header[483:495], "size")), segments


def _entries(raw: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(raw), 24):
        if not raw[at]:
            return
        yield number(raw[at : at + 12], "offset"), number(raw[at + 12 : at + 24], "size")


def name_and_size(pax: Mapping[bytes, bytes]) -> tuple[bytes, int] | None:
    """What a sparse file is called and how long it is, by its PAX records; None if it is none."""
    if not any(key.startswith(PREFIX) for key in pax):
        return None
    found = next((pax[key] for key in _SIZES if key in pax), None)
    if found is None:
        raise Malformed("has a sparse file without its size")
    return pax.get(_NAME, b""), checked_size(decimal(found))


def in_pax(pax: Mapping[bytes, bytes], next_block: NextBlock) -> Segments:
    """The map that PAX records have, or the blocks that come next."""
    version = pax.get(_MAJOR, b"0"), pax.get(_MINOR, b"0")
    if version == (b"1", b"0"):
        return _in_blocks(next_block)
    if version not in ((b"0", b"0"), (b"0", b"1")):
        shown = b".".join(version)[:20].decode(errors="replace")
        raise Malformed(f"has a sparse file of unsupported version {shown}")
    numbers = [decimal(text) for text in pax[MAP].split(b",")] if pax.get(MAP) else []
    return _pairs(numbers)


def _in_blocks(next_block: NextBlock) -> Segments:
    """Numbers, each on a line: how many segments there are, and then those; to a block's end."""
    lines = _lines(next_block)
    count = decimal(next(lines))
    _check_count(count)
    return _pairs([decimal(next(lines)) for _ in range(2 * count)])


def _lines(next_block: NextBlock) -> Iterator[bytes]:
    waiting = b""
    while True:
        *lines, waiting = (waiting + next_block()).split(b"\n")
        if len(waiting) > _BLOCK:
            raise Malformed("has a sparse file with a bad map")
        yield from lines


def _pairs(numbers: list[int]) -> Segments:
    if len(numbers) % 2:
        raise Malformed("has a sparse file with a bad map")
    _check_count(len(numbers) // 2)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_count(count: int) -> None:
    if not 0 <= count <= _MOST:
        raise Malformed(f"has a sparse file of {count} parts: no more than {_MOST} are taken")


def check(segments: Segments, whole: int, stored: int) -> None:
    """Raises Malformed unless they are in order, within `whole` bytes, and `stored` together."""
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise Malformed("has a sparse file whose parts overlap, or are out of order")
        end = offset + length
    if end > whole:
        raise Malformed("has a sparse file with parts beyond its end")
    if sum(length for _, length in segments) != stored:
        raise Malformed("has a sparse file whose map is not that of its content")
