"""A streaming tar reader: ustar, GNU and PAX, as layers come (OCI image spec, layer.md).

Sparse files come out whole, as from any other archive.

Strict where it matters: checksums, sizes and an archive that breaks off are errors. All names are
bytes, as the kernel takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar
from zlib import adler32

from orlop.errors import InvalidArgument, ResourceExhausted
from orlop.tar import sparse, zeros
from orlop.tar.fields import Malformed, checked_size, decimal, number
from orlop.tar.names import show

BLOCK = 512

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_REGULAR_TOO = (b"\0", b"7")
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_KNOWN = frozenset((REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))

# What one extended header may take: names and xattrs of one file.
EXTENSION_MAX = 1 << 20
HOLES_MAX = 1 << 40
"""The bytes that all sparse files of an archive may lack together."""
PARTS_MAX = 1 << 20
"""The parts between holes that all sparse files of an archive may have together."""
_ZEROS = bytes(BLOCK)
_XATTR_PREFIX = b"SCHILY.xattr."

P = ParamSpec("P")
T = TypeVar("T")

# Gives the next bytes of the archive, b"" at its end.
Read = Callable[[], bytes]


@dataclass(slots=True)
class Entry:
    """One member. `mtime` is in nanoseconds, `size` the bytes of its content.

    A sparse file's `segments` are where what the archive has of it belongs, None are of others.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    segments: sparse.Segments | None = None


class TarReader:
    """Iterates over the entries of an archive; read each one's content before the next.

    `what` it is, is said in errors: InvalidArgument for anything that is not a well-formed archive,
    ResourceExhausted for one that has more than `max_holes` bytes of holes, or `PARTS_MAX` parts.
    """

    def __init__(self, read: Read, what: str = "layer", max_holes: int = HOLES_MAX) -> None:
        self._read = read
        self._what = what
        self._max_holes = self._holes_left = max_holes
        self._parts_left = PARTS_MAX
        self._buffer = memoryview(b"")
        self._got = 0
        self._left = 0  # content of the current entry that nobody has read yet
        self._padding = 0
        self._spread: tuple[sparse.Segments, int] | None = None  # of a sparse entry, and its size

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._told(self._next)) is not None:
            yield entry

    @property
    def position(self) -> int:
        """How many bytes of the archive are behind: where what it has of an entry begins."""
        return self._got - len(self._buffer)

    def content(self) -> Iterator[memoryview]:
        """The content of the current entry, in pieces as they come; of holes, zeros."""
        if self._spread is None:
            return self._stored(self._left)
        spread, self._spread = self._spread, None
        return self._with_holes(*spread)

    def _with_holes(self, segments: sparse.Segments, whole: int) -> Iterator[memoryview]:
        at = 0
        for offset, length in segments:
            yield from zeros.of(offset - at)
            yield from self._stored(length)
            at = offset + length
        yield from zeros.of(whole - at)

    def _stored(self, size: int) -> Iterator[memoryview]:
        while size:
            piece = self._told(self._some, size)
            size -= len(piece)
            self._left -= len(piece)
            yield piece

    def _told(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of an action, whose errors say what is read."""
        try:
            return action(*args, **kwargs)
        except Malformed as error:
            raise InvalidArgument(f"{self._what} {error}") from None

    def rest(self) -> Iterator[memoryview]:
        """What follows the end marker, in pieces as they come."""
        while self._buffer or self._fill():
            piece, self._buffer = self._buffer, memoryview(b"")
            yield piece

    def drain(self) -> None:
        """Read what follows the end marker: the layer's digest covers it."""
        for _ in self.rest():
            pass

    def _next(self) -> Entry | None:
        pax: dict[bytes, bytes] = {}
        name = link = None
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            self._spread = None
            header = self._header()
            if header is None:
                return None
            entry = _parse(header)
            kind = entry.type
            if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
                data = self._extension(entry.size)
                if kind == _PAX:
                    pax = _parse_pax(data)
                elif kind == _GNU_NAME:
                    name = data.rstrip(b"\0")
                elif kind == _GNU_LINK:
                    link = data.rstrip(b"\0")
                continue
            entry.name = name or entry.name
            entry.link = link or entry.link
            if pax:
                _apply_pax(entry, pax)
            if kind == _GNU_SPARSE:
                entry.type = REGULAR
                whole, segments = sparse.in_header(header, self._block)
                self._accept(entry)
                self._accept_sparse(entry, whole, segments)
            elif pax and (found := sparse.name_and_size(pax)):
                entry.name = found[0] or entry.name
                self._accept(entry)
                self._accept_sparse(entry, found[1], sparse.in_pax(pax, self._block_of_content))
            else:
                self._accept(entry)
            return entry

    def _accept_sparse(self, entry: Entry, whole: int, segments: sparse.Segments) -> None:
        if entry.type != REGULAR:
            raise Malformed(f"entry {show(entry.name)} is sparse, but no file")
        sparse.check(segments, whole, self._left)
        self._holes_left -= whole - self._left
        if self._holes_left < 0:
            raise ResourceExhausted(
                f"{self._what} has sparse files with more than {self._max_holes} bytes of holes"
            )
        segments = [(offset, length) for offset, length in segments if length]
        self._parts_left -= len(segments)
        if self._parts_left < 0:  # whoever makes an image keeps them all
            raise ResourceExhausted(
                f"{self._what} has sparse files of more than {PARTS_MAX} parts together"
            )
        entry.size, entry.segments = whole, segments
        self._spread = segments, whole

    def _accept(self, entry: Entry) -> None:
        if entry.type in _REGULAR_TOO:
            # Before POSIX, a directory was a file whose name ends in a slash.
            entry.type = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        if entry.type not in _KNOWN:
            raise Malformed(f"entry {show(entry.name)} is of unsupported type {entry.type!r}")
        if entry.type != REGULAR:
            entry.size = 0
        if not entry.name:
            raise Malformed("has an entry without a name")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise Malformed(f"entry {show(entry.name)} has a zero byte in its name")
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _header(self) -> bytes | None:
        """The next header block; None at the end marker or a clean end of the bytes."""
        if not self._buffer and not self._fill():
            return None
        block = self._block()
        if block == _ZEROS:
            return None
        return block

    def _block(self) -> bytes:
        return self._exactly(BLOCK)

    def _block_of_content(self) -> bytes:
        if self._left < BLOCK:
            raise Malformed("has a sparse file with a bad map")
        self._left -= BLOCK
        return self._block()

    def _extension(self, size: int) -> bytes:
        if size > EXTENSION_MAX:
            raise Malformed(f"has an extended header of {size} bytes")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        return data

    def _fill(self) -> bool:
        self._buffer = memoryview(self._read())
        self._got += len(self._buffer)
        return len(self._buffer) > 0

    def _some(self, most: int) -> memoryview:
        if not self._buffer and not self._fill():
            raise Malformed("breaks off in the middle")
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            return bytes(piece)
        parts = []
        while size:
            part = self._some(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))


def _parse(header: bytes) -> Entry:
    """A header block: POSIX ustar, or GNU's variant of it."""
    stored = number(header[148:156], "checksum")
    if _sum(header[:148]) + 8 * 0x20 + _sum(header[156:332]) + _sum(header[332:]) != stored:
        raise Malformed("has a header with a wrong checksum: it is not a tar")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    kind = header[156:157]
    device = kind in (CHAR, BLOCK_DEVICE)
    return Entry(
        name=name,
        type=kind,
        mode=number(header[100:108], "mode") & 0o7777,
        uid=number(header[108:116], "uid"),
        gid=number(header[116:124], "gid"),
        size=checked_size(number(header[124:136], "size")),
        mtime=number(header[136:148], "mtime") * 1_000_000_000,
        link=header[157:257].partition(b"\0")[0],
        major=number(header[329:337], "device") if device else 0,
        minor=number(header[337:345], "device") if device else 0,
    )


def _sum(data: bytes) -> int:
    """Of at most 256 bytes, which is one less than the lower half of their Adler-32 then."""
    return (adler32(data) & 0xFFFF) - 1


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """PAX records, `length key=value\\n` (POSIX pax, "Extended Header")."""
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit():
            raise Malformed("has a malformed extended header")
        end = at + int(length)
        record = data[at + len(length) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not equals or record[-1:] != b"\n":
            raise Malformed("has a malformed extended header")
        at = end
        if key in sparse.PAIR:
            if key != sparse.PAIR[len(pairs) % 2]:
                raise Malformed("has a sparse file with a bad map")
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[sparse.MAP] = b",".join(pairs)
    return records


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = checked_size(decimal(value))
        elif key == b"uid":
            entry.uid = decimal(value)
        elif key == b"gid":
            entry.gid = decimal(value)
        elif key == b"mtime":
            entry.mtime = _time(value)
        elif key.startswith(_XATTR_PREFIX):
            name = key.removeprefix(_XATTR_PREFIX).decode(errors="surrogateescape")
            entry.xattrs[name] = value


def _time(value: bytes) -> int:
    """Seconds with a fraction, in nanoseconds, without a detour through floating point."""
    whole, _, fraction = value.partition(b".")
    nanoseconds = decimal((fraction + b"000000000")[:9]) if fraction else 0
    seconds = decimal(whole) * 1_000_000_000
    return seconds - nanoseconds if whole.startswith(b"-") else seconds + nanoseconds
