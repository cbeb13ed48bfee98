"""The files of a log: `path` is written to, `path.1` was before it, `path.2` before that."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

MODE = 0o640


def earlier(path: str, number: int) -> str:
    """The name of the file that was written to `number` files ago."""
    return f"{path}.{number}" if number else path


class RotatingFile:
    """Takes whole entries; starts a new file before one grows beyond `max_size` bytes.

    Every file is locked (shared) while it is written to: who gets an exclusive lock knows that the
    writer has ended. Another process may rename or remove the file; a new one is made then.
    """

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._fd = -1
        self._inode = 0
        self._size = 0
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
        self._open()

    def write(self, entries: bytes) -> None:
        """Raises OSError when nothing can be written; a part of the entries may have been."""
        if not self._is_ours():
            self._reopen()
        while self._max_size and self._size + len(entries) > self._max_size:
            # As many entries as fit; one that is larger than a file gets a file of its own.
            cut = entries.rfind(b"\n", 0, max(0, self._max_size - self._size)) + 1
            if not cut and not self._size:
                cut = entries.find(b"\n") + 1
            self._append(entries[:cut])
            entries = entries[cut:]
            if not entries:
                return
            self._rotate()
        self._append(entries)

    def close(self) -> None:
        os.close(self._fd)

    def _append(self, entries: bytes) -> None:
        before = self._size
        view = memoryview(entries)
        try:
            while view:
                count = os.write(self._fd, view)
                self._size += count
                view = view[count:]
        except OSError:
            # No torn entry: whoever reads it could not tell it from a damaged log.
            with suppress(OSError):
                os.ftruncate(self._fd, before)
                self._size = before
            raise

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, MODE)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        status = os.fstat(self._fd)
        self._inode, self._size = status.st_ino, status.st_size
        # A writer that was killed may have left a torn entry.
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._append(b"\n")

    def _is_ours(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode  # noqa: PTH116
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        for number in range(self._max_file - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.rename(earlier(self._path, number - 1), earlier(self._path, number))  # noqa: PTH104
        if self._max_file == 1:
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108
        self._reopen()

    def _reopen(self) -> None:
        old = self._fd
        try:
            self._open()
        finally:  # also when the new one is open, and cannot be written to
            if self._fd != old:
                os.close(old)


class PatientFile:
    """A log that a full disk does not stop: what cannot be written is counted, and told later."""

    def __init__(self, file: RotatingFile, notice: Callable[[str], bytes]) -> None:
        self._file = file
        self._notice = notice
        self._lost = 0
        self._reason = ""

    def write(self, entries: bytes) -> None:
        notice = b""
        if self._lost:
            notice = self._notice(
                f"orlop-logger: {self._lost} bytes of log are lost: {self._reason}\n"
            )
        try:
            self._file.write(notice + entries if notice else entries)
            self._lost = 0
        except OSError as error:
            self._lost += len(entries)
            self._reason = (error.strerror or str(error)).lower()
