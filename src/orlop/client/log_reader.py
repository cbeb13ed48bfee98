"""Reads a log that is written to and rotated meanwhile, from its beginning or its last lines."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from orlop.client.log_entries import Entry, Parser
from orlop.logger.rotation import earlier

CHUNK = 1 << 20
_TRIES = 100
_MOMENT = 0.001


class Extent(NamedTuple):
    """A log up to a place in the file that was the newest one."""

    inode: int
    size: int


class LogReader:
    """The entries of the log at `path`, in order; the caller closes it.

    A `plain` file is read by bytes, others by lines. `from_…` opens it, and raises
    FileNotFoundError where there is no log.
    """

    def __init__(self, path: Path, parse: Parser, *, plain: bool = False) -> None:
        self._path = os.fspath(path)
        self._parse = parse
        self._plain = plain
        self._rest = b""
        self.fd = -1

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def inode(self) -> int:
        """Which file is being read."""
        return os.fstat(self.fd).st_ino

    def from_beginning(self, changed_since: float = 0.0) -> None:
        """Read from the oldest file on that was changed at or after a moment (Unix time)."""
        for _ in range(_TRIES):
            for path, status in reversed(self._files()):
                if status.st_mtime < changed_since and path != self._path:
                    continue
                if self._move_to(path, status.st_ino):
                    return
        self._move_to(self._path)

    def from_end(self, lines: int) -> list[Entry]:
        """The last lines; what comes after them is read next."""
        self._move_to(self._path)
        end = os.fstat(self.fd).st_size
        if not self._plain:
            end = _end_of_lines(self.fd, end)
        found: list[Entry] = []
        missing = lines
        # Another rotation does no harm: these are older than the file that is open.
        with closing(_backwards(self._older_than(self.fd), self.fd, end)) as blocks:
            while missing >= 0 and lines > 0 and (block := next(blocks, b"")):
                parsed = list(self._parse(block))
                missing -= sum(each.data.count(b"\n") for each in parsed)
                found[:0] = parsed
        os.lseek(self.fd, end, os.SEEK_SET)
        return _last(found, lines)

    def extent(self) -> Extent:
        """How far the log goes now."""
        try:
            status = os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            status = os.fstat(self.fd)
        return Extent(status.st_ino, status.st_size)

    def available(self, limit: Extent | None = None) -> Iterator[list[Entry]]:
        """What there is to read now, or up to a limit, also in files that came after the open one.

        Without a limit it may go on for as long as the log's writer is faster than the reader.
        """
        while True:
            yield from self._to_end(limit)
            if (limit is not None and limit.inode == self.inode) or not self._is_over():
                return
            yield from self._to_end(None)  # written between the last read and the rotation
            if not self._next():
                return

    def is_written_to(self) -> bool:
        """Whether the log's writer is there: it has locked the file that it writes to.

        That may be a later one than is read; while it begins one, the one before is locked still.
        """
        return _is_locked(self.fd) or any(
            _is_locked_at(earlier(self._path, number)) for number in (0, 1, 0)
        )

    def _to_end(self, limit: Extent | None) -> Iterator[list[Entry]]:
        left = sys.maxsize
        if limit is not None and limit.inode == self.inode:
            left = limit.size - os.lseek(self.fd, 0, os.SEEK_CUR)
        while left > 0 and (data := os.read(self.fd, min(CHUNK, left))):
            left -= len(data)
            data = self._rest + data
            end = len(data) if self._plain else data.rfind(b"\n") + 1
            self._rest = data[end:]
            if end:
                yield list(self._parse(data[:end]))

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """The files of the log, newest first.

        A rotation that is under way leaves one name out at a time, and may show a file twice: it
        gives files higher numbers, the highest first.
        """
        found: dict[int, tuple[str, os.stat_result]] = {}
        number = missing = 0
        while missing < 2:
            path = earlier(self._path, number)
            number += 1
            try:
                status = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:
                missing += 1
                continue
            missing = 0
            found.pop(status.st_ino, None)
            found[status.st_ino] = (path, status)
        return list(found.values())

    def _older_than(self, fd: int) -> list[str]:
        """The files that were written before one, newest first."""
        inode = os.fstat(fd).st_ino
        files = self._files()
        inodes = [status.st_ino for _, status in files]
        if inode not in inodes:
            return []
        return [path for path, _ in files[inodes.index(inode) + 1 :]]

    def _is_over(self) -> bool:
        """Whether the open file is no longer the one that is written to."""
        try:
            return os.stat(self._path).st_ino != self.inode  # noqa: PTH116
        except FileNotFoundError:
            return True

    def _next(self) -> bool:
        """Go on with the file that was begun after the open one; whether there is one yet."""
        inode = self.inode
        for _ in range(_TRIES):
            files = self._files()
            inodes = [status.st_ino for _, status in files]
            # A file that is not there any more was the oldest one.
            index = inodes.index(inode) if inode in inodes else len(files)
            if index and self._move_to(files[index - 1][0], inodes[index - 1]):
                self._rest = b""  # of a writer that was killed: nobody will complete it
                return True
            time.sleep(_MOMENT)
        return False

    def _move_to(self, path: str, inode: int = 0) -> bool:
        """Open a file, if it is still the one that was meant."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if inode:
                return False
            raise
        if inode and os.fstat(fd).st_ino != inode:
            os.close(fd)
            return False
        self.close()
        self.fd = fd
        return True


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _is_locked_at(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def _end_of_lines(fd: int, end: int) -> int:
    """Where the last whole line before `end` ends."""
    while end > 0:
        start = max(0, end - CHUNK)
        if found := os.pread(fd, end - start, start).rfind(b"\n") + 1:
            return start + found
        end = start
    return 0


def _backwards(older: list[str], fd: int, end: int) -> Generator[bytes, None, None]:
    """Whole lines, the last ones first, in blocks, through a file and those before it."""
    yield from _blocks(fd, end)
    for path in older:
        try:
            other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            yield from _blocks(other, os.fstat(other).st_size)
        finally:
            os.close(other)


def _blocks(fd: int, end: int) -> Generator[bytes, None, None]:
    carry = b""
    while end > 0:
        start = max(0, end - CHUNK)
        data = os.pread(fd, end - start, start) + carry
        cut = data.find(b"\n") + 1 if start else 0
        end = start
        if start and not cut:
            carry = data
            continue
        carry = data[:cut]
        if data[cut:]:
            yield data[cut:]


def _last(entries: list[Entry], lines: int) -> list[Entry]:
    """The end of a list that holds that many lines; an entry may hold several."""
    if lines <= 0:
        return []
    wanted = lines
    if entries and entries[-1].data.endswith(b"\n"):
        wanted += 1  # the newline that ends the last line begins none
    for index in range(len(entries) - 1, -1, -1):
        data = entries[index].data
        position = len(data)
        while (position := data.rfind(b"\n", 0, position)) >= 0:
            wanted -= 1
            if not wanted:
                first = entries[index]._replace(data=data[position + 1 :])
                return ([first] if first.data else []) + entries[index + 1 :]
    return entries
