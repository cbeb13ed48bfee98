"""Tar headers (POSIX ustar, and pax for what is too large), without times and owners.

They are byte for byte those of containerd's archives.
"""

from __future__ import annotations

import tarfile

READ_ONLY, ORDINARY, _FOLDER = 0o444, 0o644, 0o755
END = bytes(2 * tarfile.BLOCKSIZE)

_USTAR_MAX = 1 << 33  # eleven octal digits
_NONE = b"0000000\0"


def file(path: str, size: int, mode: int) -> bytes:
    """What stands before the `size` bytes of a file."""
    if size < _USTAR_MAX and len(path) <= tarfile.LENGTH_NAME:
        return _header(path, size, mode, tarfile.REGTYPE)
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, mode
    return entry.tobuf(tarfile.PAX_FORMAT)


def folder(path: str) -> bytes:
    """A folder, whose `path` ends in a slash."""
    return _header(path, 0, _FOLDER, tarfile.DIRTYPE)


def padding(size: int) -> bytes:
    """What follows `size` bytes of content."""
    return bytes(-size % tarfile.BLOCKSIZE)


def _header(path: str, size: int, mode: int, kind: bytes) -> bytes:
    """A ustar header."""
    head = (
        path.encode().ljust(100, b"\0")
        + b"%07o\0" % mode
        + 2 * _NONE
        + b"%011o\0%011o\0" % (size, 0)
    )
    tail = kind + bytes(100) + b"ustar\00000" + bytes(64) + 2 * _NONE
    total = sum(head) + sum(tail) + 8 * ord(" ")
    return (head + b"%06o\0 " % total + tail).ljust(tarfile.BLOCKSIZE, b"\0")
