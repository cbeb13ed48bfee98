"""Read what has a digest, and say whether its bytes have it still."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orlop.erofs.image import tar_of
from orlop.errors import Unavailable
from orlop.oci.hashing import new_hash
from orlop.sys.fs import SCARCE
from orlop.tar.reader import BLOCK

_CHUNK = 1 << 20
_TOLD = 64 << 20  # bytes between two reports of progress

Advance = Callable[[int, int], None]
"""Told of bytes that are read, and of all that are to be."""


class Reading:
    """Goes through `total` bytes of files, of which each is `passed` in the end."""

    def __init__(self, total: int, advance: Advance) -> None:
        self._total = total
        self._advance = advance
        self._before = self._told = 0
        self._buffer = bytearray(_CHUNK)
        advance(0, total)

    def passed(self, size: int) -> None:
        self._before += size

    def end(self) -> None:
        self._advance(self._total, self._total)

    def blob(self, path: Path, digest: str) -> str:
        """What is wrong with the bytes of a blob, "" if nothing is."""
        algorithm = digest.partition(":")[0]
        state = new_hash(algorithm)
        read = 0
        with path.open("rb", buffering=0) as file:
            try:
                for piece in self._pieces(file.fileno()):
                    state.update(piece)
                    read += len(piece)
            except OSError as error:
                _check(error, path)
                return f"after {read} bytes: {error.strerror}"
        found = f"{algorithm}:{state.hexdigest()}"
        return "" if found == digest else f"its {read} bytes have digest {found}"

    def layer(self, path: Path) -> str:
        """What is wrong with the tar that an image of a layer holds; "" too where it holds none."""
        state = new_hash("sha256")
        with path.open("rb", buffering=0) as file:
            try:
                tar = tar_of(file.fileno())
                if tar is None:
                    return ""
                last = b""
                for piece in self._pieces(file.fileno(), tar.begin, tar.end):
                    state.update(last)
                    last = bytes(piece)
            except OSError as error:
                _check(error, path)
                return str(error)
            except ValueError as error:
                return str(error)
        state.update(last[:-BLOCK])
        if _ends_as(state, last[-BLOCK:], tar.digest):
            return ""
        return f"the layer in it does not have the digest {tar.digest.hex()}…"

    def _pieces(self, fd: int, begin: int = 0, end: int = 1 << 62) -> Iterator[memoryview]:
        """The bytes of a file from an offset to another; each piece until the next one."""
        view = memoryview(self._buffer)
        at = begin
        while count := os.preadv(fd, [view[: min(_CHUNK, end - at)]], at):
            yield view[:count]
            at += count
            if self._before + at - self._told >= _TOLD:
                self._told = self._before + at
                self._advance(self._told, self._total)
        # What containers read stays in memory rather than what nobody will read soon.
        os.posix_fadvise(fd, begin, at - begin, os.POSIX_FADV_DONTNEED)


def _check(error: OSError, path: Path) -> None:
    """Raise Unavailable for an error that tells nothing of the file."""
    if error.errno in SCARCE:
        raise Unavailable(f'"{path}" cannot be read just now: {error.strerror}') from error


def _ends_as(state: Any, block: bytes, digest: bytes) -> bool:
    """Whether what was hashed has a digest with a block, or with less of the zeros at its end."""
    for size in range(len(block), len(block.rstrip(b"\0")) - 1, -1):
        whole = state.copy()
        whole.update(block[:size])
        if whole.digest().startswith(digest):
            return True
    return False
