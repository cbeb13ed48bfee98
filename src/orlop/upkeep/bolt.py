"""Read a bbolt database: a file of buckets, which hold values and further buckets by key.

The file is pages of one size. The first two are meta pages, of which the newer valid one names the
root bucket's page; pages of branches lead to pages of leaves, each page with what is over in those
that follow it. A bucket in a bucket is a leaf whose value names its page, or, if it is small,
holds it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from orlop.errors import DataLoss, FailedPrecondition

_MAGIC, _VERSION = 0xED0CDAED, 2
_HEADER = struct.Struct("<QHHI")  # page, flags, count of elements, pages over
_BRANCH_PAGE, _LEAF_PAGE = 0x01, 0x02
_BRANCH = struct.Struct("<IIQ")  # position, length of the key, page
_LEAF = struct.Struct("<IIII")  # flags, position, lengths of key and value
_BUCKET = struct.Struct("<QQ")  # page (0: here), sequence
_IS_BUCKET = 0x01
_META = struct.Struct("<IIIIQQQQQQ")
_SUMMED = _META.size - 8
_PAGE_SIZES = [1 << bits for bits in range(10, 17)]
_DEPTH = 64


class BoltFile:
    """An open database, which nobody can write to meanwhile. Use as a context manager.

    Raises FailedPrecondition when a process has it open to write, DataLoss for what is no such
    database, or one that is damaged; as all its buckets do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self._data = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        except BlockingIOError:
            os.close(fd)
            raise FailedPrecondition(f'"{path}" is in use by a process that writes to it') from None
        except (OSError, ValueError) as error:
            os.close(fd)
            raise DataLoss(f'"{path}" cannot be read: {error}') from error
        self._fd = fd
        self._page_size, self._root = self._newest_meta()

    def __enter__(self) -> BoltFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The map goes with the last of what was read of it, and would keep the lock until then.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    @property
    def root(self) -> Bucket:
        return Bucket(self, self._page(self._root))

    def bucket(self, value: memoryview) -> Bucket:
        """The bucket that a leaf's value is."""
        try:
            page, _ = _BUCKET.unpack_from(value)
        except struct.error:
            raise self._damage("a bucket is cut off") from None
        return Bucket(self, self._page(page) if page else value[_BUCKET.size :])

    def items(self, page: memoryview, depth: int = 0) -> Iterator[tuple[bytes, memoryview, bool]]:
        """Key and value of each leaf below a page, in order, and whether it is a bucket."""
        if depth > _DEPTH:
            raise self._damage("its pages go round in circles")
        try:
            _, flags, count, _ = _HEADER.unpack_from(page)
            if flags == _BRANCH_PAGE:
                for number in range(count):
                    at = _HEADER.size + number * _BRANCH.size
                    child = _BRANCH.unpack_from(page, at)[2]
                    yield from self.items(self._page(child), depth + 1)
            elif flags == _LEAF_PAGE:
                for number in range(count):
                    at = _HEADER.size + number * _LEAF.size
                    kind, position, key, value = _LEAF.unpack_from(page, at)
                    begin = at + position
                    if begin + key + value > len(page):
                        raise self._damage("a value goes beyond its page")
                    yield (
                        bytes(page[begin : begin + key]),
                        page[begin + key : begin + key + value],
                        bool(kind & _IS_BUCKET),
                    )
            else:
                raise self._damage(f"a page has flags {flags:#x}")
        except struct.error:
            raise self._damage("a page is cut off") from None

    def _page(self, number: int) -> memoryview:
        begin = number * self._page_size
        data = memoryview(self._data)
        if begin + _HEADER.size > len(data):
            raise self._damage(f"page {number} is beyond its end")
        found, _, _, over = _HEADER.unpack_from(data, begin)
        if found != number:
            raise self._damage(f"page {number} says that it is {found}")
        return data[begin : begin + (1 + over) * self._page_size]

    def _newest_meta(self) -> tuple[int, int]:
        """The size of pages, and the page of the root bucket."""
        newest: tuple[int, int, int] | None = None
        for at in (
            0,
            *_PAGE_SIZES,
        ):  # the second is one page behind the first, which may be damaged
            begin = at + _HEADER.size
            if begin + _META.size > len(self._data):
                break
            magic, version, size, _, root, _, _, _, transaction, checksum = _META.unpack_from(
                self._data, begin
            )
            summed = self._data[begin : begin + _SUMMED]
            if (magic, version) != (_MAGIC, _VERSION) or checksum != _fnv(summed) or at % size:
                continue
            if newest is None or transaction > newest[0]:
                newest = (transaction, size, root)
        if newest is None:
            raise self._damage("it has no valid meta page")
        return newest[1:]

    def _damage(self, what: str) -> DataLoss:
        return DataLoss(f'"{self._path}" is no bolt database, or damaged: {what}')


class Bucket:
    """What a bucket holds."""

    def __init__(self, file: BoltFile, page: memoryview) -> None:
        self._file = file
        self._page = page

    def buckets(self) -> Iterator[tuple[str, Bucket]]:
        """The buckets in it, by name."""
        for key, value, is_bucket in self._file.items(self._page):
            if is_bucket:
                yield key.decode(errors="replace"), self._file.bucket(value)

    def values(self) -> dict[str, bytes]:
        """The values in it."""
        return {
            key.decode(errors="replace"): bytes(value)
            for key, value, is_bucket in self._file.items(self._page)
            if not is_bucket
        }

    def find(self, *path: str) -> Bucket | None:
        """The bucket in a bucket in a bucket."""
        found: Bucket | None = self
        for name in path:
            found = dict(found.buckets()).get(name) if found else None
        return found


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
