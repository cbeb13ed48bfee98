"""A streaming tar reader: ustar, GNU and PAX, as layers come (OCI image spec, layer.md).

Strict where it matters: checksums, sizes and an archive that breaks off are errors. All names are
bytes, as the kernel takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from zlib import adler32

from orlop.errors import InvalidArgument

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
_ZEROS = bytes(BLOCK)
_XATTR_PREFIX = b"SCHILY.xattr."

T = TypeVar("T")

# Gives the next bytes of the archive, b"" at its end.
Read = Callable[[], bytes]


@dataclass(slots=True)
class Entry:
    """One member. `mtime` is in nanoseconds, `size` the bytes of content that follow."""

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


class _Malformed(Exception):
    """What is wrong with an archive, to follow its name."""


class TarReader:
    """Iterates over the entries of an archive; read each one's content before the next.

    `what` it is, is said in errors: InvalidArgument for anything that is not a well-formed archive.
    """

    def __init__(self, read: Read, what: str = "layer") -> None:
        self._read = read
        self._what = what
        self._buffer = memoryview(b"")
        self._got = 0
        self._left = 0  # content of the current entry that nobody has read yet
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._told(self._next)) is not None:
            yield entry

    @property
    def position(self) -> int:
        """How many bytes of the archive are behind: where an entry's content begins."""
        return self._got - len(self._buffer)

    def content(self) -> Iterator[memoryview]:
        """The content of the current entry, in pieces as they come."""
        while self._left:
            piece = self._told(lambda: self._some(self._left))
            self._left -= len(piece)
            yield piece

    def _told(self, action: Callable[[], T]) -> T:
        """The result of an action, whose errors say what is read."""
        try:
            return action()
        except _Malformed as error:
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
            self._accept(entry)
            return entry

    def _accept(self, entry: Entry) -> None:
        if entry.type in _REGULAR_TOO:
            # Before POSIX, a directory was a file whose name ends in a slash.
            entry.type = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        if entry.type not in _KNOWN:
            kind = "sparse" if entry.type == _GNU_SPARSE else f"type {entry.type!r}"
            raise _Malformed(f"entry {_show(entry.name)} is of unsupported {kind}")
        if entry.type != REGULAR:
            entry.size = 0
        if not entry.name:
            raise _Malformed("has an entry without a name")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise _Malformed(f"entry {_show(entry.name)} has a zero byte in its name")
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _header(self) -> bytes | None:
        """The next header block; None at the end marker or a clean end of the bytes."""
        if not self._buffer and not self._fill():
            return None
        block = self._exactly(BLOCK)
        if block == _ZEROS:
            return None
        return block

    def _extension(self, size: int) -> bytes:
        if size > EXTENSION_MAX:
            raise _Malformed(f"has an extended header of {size} bytes")
        data = self._exactly(size)
        self._skip(-size % BLOCK)
        return data

    def _fill(self) -> bool:
        self._buffer = memoryview(self._read())
        self._got += len(self._buffer)
        return len(self._buffer) > 0

    def _some(self, most: int) -> memoryview:
        if not self._buffer and not self._fill():
            raise _Malformed("breaks off in the middle")
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
    stored = _number(header[148:156], "checksum")
    if _sum(header[:148]) + 8 * 0x20 + _sum(header[156:332]) + _sum(header[332:]) != stored:
        raise _Malformed("has a header with a wrong checksum: it is not a tar")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    kind = header[156:157]
    device = kind in (CHAR, BLOCK_DEVICE)
    return Entry(
        name=name,
        type=kind,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_number(header[108:116], "uid"),
        gid=_number(header[116:124], "gid"),
        size=_size(_number(header[124:136], "size")),
        mtime=_number(header[136:148], "mtime") * 1_000_000_000,
        link=header[157:257].partition(b"\0")[0],
        major=_number(header[329:337], "device") if device else 0,
        minor=_number(header[337:345], "device") if device else 0,
    )


def _sum(data: bytes) -> int:
    """Of at most 256 bytes, which is one less than the lower half of their Adler-32 then."""
    return (adler32(data) & 0xFFFF) - 1


def _number(raw: bytes, what: str) -> int:
    """An octal number, or GNU's base 256 with the top bit set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big", signed=False) & ((1 << (len(raw) * 8 - 1)) - 1)
        if raw[0] == 0xFF:
            value -= 1 << (len(raw) * 8 - 1)
        return value
    text = raw.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise _Malformed(f"has a header with a bad {what}: {raw!r}") from None


def _size(value: int) -> int:
    if value < 0:
        raise _Malformed(f"has an entry of size {value}")
    return value


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """PAX records, `length key=value\\n` (POSIX pax, "Extended Header")."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit():
            raise _Malformed("has a malformed extended header")
        end = at + int(length)
        record = data[at + len(length) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not equals or record[-1:] != b"\n":
            raise _Malformed("has a malformed extended header")
        records[key] = value
        at = end
    return records


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _size(_decimal(value))
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime = _time(value)
        elif key.startswith(_XATTR_PREFIX):
            name = key.removeprefix(_XATTR_PREFIX).decode(errors="surrogateescape")
            entry.xattrs[name] = value
        elif key.startswith(b"GNU.sparse."):
            raise _Malformed(f"entry {_show(entry.name)} is of unsupported sparse type")


def _decimal(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise _Malformed(f"has a bad number in a header: {value[:40]!r}") from None


def _time(value: bytes) -> int:
    """Seconds with a fraction, in nanoseconds, without a detour through floating point."""
    whole, _, fraction = value.partition(b".")
    nanoseconds = _decimal((fraction + b"000000000")[:9]) if fraction else 0
    seconds = _decimal(whole) * 1_000_000_000
    return seconds - nanoseconds if whole.startswith(b"-") else seconds + nanoseconds


def _show(name: bytes) -> str:
    return f'"{name.decode(errors="replace")}"'
