"""Write a tar: POSIX ustar, with pax headers where a value does not fit (POSIX pax, "ustar").

The same entries give the same bytes: nothing of the time or the place of writing goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from orlop.errors import InvalidArgument
from orlop.tar.names import show
from orlop.tar.reader import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, EXTENSION_MAX, Entry

Write = Callable[[bytes | memoryview], None]

_END = bytes(2 * BLOCK)
_SECOND = 1_000_000_000
_PAX = b"x"
_NAME_MAX, _PREFIX_MAX = 100, 155
_USTAR = b"ustar\x0000"
# The greatest numbers that fit into an octal field of eight and of twelve bytes.
_SMALL_MAX, _LARGE_MAX = 0o7777777, 0o77777777777


class Archive(Protocol):
    """What takes entries, one after the other; a regular file's content follows its entry."""

    def entry(self, entry: Entry) -> None: ...
    def content(self, pieces: Iterable[bytes | memoryview], size: int) -> None: ...
    def close(self) -> None: ...


class TarWriter:
    """Writes entry after entry; `close` ends the archive.

    After the entry of a regular file exactly its `size` bytes must follow, through `content`.
    """

    def __init__(self, write: Write) -> None:
        self._write = write

    def entry(self, entry: Entry) -> None:
        """Raises InvalidArgument for names and attributes that no reader would take."""
        name = entry.name + b"/" if entry.type == DIRECTORY else entry.name
        pax = _pax_records(entry, name)
        if pax:
            base = entry.name.rpartition(b"/")[2]
            self._write(_extension(b"PaxHeaders.0/" + _ascii(base), pax, entry.name))
        self._write(_header(entry, name, in_pax=bool(pax)))

    def content(self, pieces: Iterable[bytes | memoryview], size: int) -> None:
        """The content of the entry before, padded to whole blocks."""
        for piece in pieces:
            self._write(piece)
        if padding := -size % BLOCK:
            self._write(bytes(padding))

    def close(self) -> None:
        self._write(_END)


def _pax_records(entry: Entry, name: bytes) -> dict[bytes, bytes]:
    """What of an entry does not fit into its header."""
    pax: dict[bytes, bytes] = {}
    if not name.isascii() or _split(name) is None:
        pax[b"path"] = name
    if not entry.link.isascii() or len(entry.link) > _NAME_MAX:
        pax[b"linkpath"] = entry.link
    if entry.uid > _SMALL_MAX:
        pax[b"uid"] = b"%d" % entry.uid
    if entry.gid > _SMALL_MAX:
        pax[b"gid"] = b"%d" % entry.gid
    if entry.size > _LARGE_MAX:
        pax[b"size"] = b"%d" % entry.size
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _LARGE_MAX:
        pax[b"mtime"] = _time(entry.mtime)
    for key, value in sorted(entry.xattrs.items()):
        if "=" in key:  # where a record's value begins
            raise InvalidArgument(
                f'attribute "{key}" of {show(entry.name)} has "=" in its name, '
                "which no archive can hold: remove it"
            )
        pax[b"SCHILY.xattr." + key.encode(errors="surrogateescape")] = value
    return pax


def _time(nanoseconds: int) -> bytes:
    """Seconds with as many digits after the point as it takes."""
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    digits = (b".%09d" % fraction).rstrip(b"0") if fraction else b""
    return sign + b"%d" % seconds + digits


def _extension(name: bytes, records: Mapping[bytes, bytes], about: bytes) -> bytes:
    data = b"".join(_record(key, value) for key, value in sorted(records.items()))
    if len(data) > EXTENSION_MAX:
        raise InvalidArgument(
            f"the names and attributes of {show(about)} take {len(data)} bytes: "
            f"no more than {EXTENSION_MAX} go into an archive"
        )
    header = Entry(
        name=name[:_NAME_MAX], type=_PAX, mode=0, uid=0, gid=0, size=len(data), mtime=0, link=b""
    )
    return _header(header, header.name, in_pax=False) + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d" % length + rest


def _header(entry: Entry, name: bytes, *, in_pax: bool) -> bytes:
    """One block. What a pax header says better is there in short, or zero."""
    prefix, rest = _split(_ascii(name) if in_pax else name) or (b"", _ascii(name)[:_NAME_MAX])
    device = entry.type in (CHAR, BLOCK_DEVICE)
    seconds = entry.mtime // _SECOND
    block = b"".join(
        (
            rest.ljust(_NAME_MAX, b"\0"),
            _octal(entry.mode, 8),
            _octal(entry.uid if entry.uid <= _SMALL_MAX else 0, 8),
            _octal(entry.gid if entry.gid <= _SMALL_MAX else 0, 8),
            _octal(entry.size if entry.size <= _LARGE_MAX else 0, 12),
            _octal(seconds if 0 <= seconds <= _LARGE_MAX else 0, 12),
            b" " * 8,
            entry.type,
            _ascii(entry.link)[:_NAME_MAX].ljust(_NAME_MAX, b"\0"),
            _USTAR,
            bytes(64),  # the names of user and group, which mean nothing elsewhere
            _octal(entry.major, 8) if device else bytes(8),
            _octal(entry.minor, 8) if device else bytes(8),
            prefix.ljust(_PREFIX_MAX + 12, b"\0"),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """A name as prefix and rest at a slash, None where it fits into no header."""
    if len(name) <= _NAME_MAX:
        return b"", name
    at = name.rfind(b"/", 0, _PREFIX_MAX + 1)
    if at <= 0 or not 0 < len(name) - at - 1 <= _NAME_MAX:
        return None
    return name[:at], name[at + 1 :]


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _ascii(name: bytes) -> bytes:
    return name if name.isascii() else bytes(byte for byte in name if byte < 0x80)
