"""Runs of zeros, which are holes where files may have some."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

LONGEST = 256 * 1024
"""Of one piece, as all are here that are read."""

_ZEROS = bytes(LONGEST)
_VIEW = memoryview(_ZEROS)
_PAGE = 4096


def of(size: int) -> Iterator[memoryview]:
    """So many zeros, in pieces."""
    while size > 0:
        yield _VIEW[:size]
        size -= LONGEST


def are_hole(piece: bytes | memoryview) -> bool:
    """Whether a piece is nothing else, and long enough that leaving it out saves something."""
    return len(piece) >= _PAGE and _ZEROS.startswith(piece)


def data_after(fd: int, offset: int, size: int) -> int:
    """Where a file of `size` bytes has data again from `offset` on; `size` if it has no more."""
    return min(_seek(fd, offset, os.SEEK_DATA, size), size)


def hole_after(fd: int, offset: int, size: int) -> int:
    """Where a file of `size` bytes has its next hole; its end is one."""
    return min(_seek(fd, offset, os.SEEK_HOLE, size), size)


def _seek(fd: int, offset: int, what: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing from there on
            return size
        raise
