"""Deletion of folder trees that others have made: of any depth, and never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from orlop.sys.fs import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAYS_HERE = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS


def remove_tree(path: Path | bytes, *, dir_fd: int | None = None) -> None:
    """Delete the folder `path` with all below it; nothing there is no error.

    What is mounted below stays. Raises the first OSError after all else that can be has been
    deleted.
    """
    try:
        fd = os.open(path, _FOLDER, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    walk = _Walk(fd)
    try:
        walk.run()
    finally:
        os.close(walk.at)
    try:
        os.rmdir(path, dir_fd=dir_fd)
    except OSError as error:
        raise walk.problem or error from None


class _Walk:
    """One descriptor goes down into folders, and up again by `..`: the depth costs names only."""

    def __init__(self, fd: int) -> None:
        self.at = fd
        self.problem: OSError | None = None
        self._way: list[str] = []  # the names of the folders that it is in
        self._places = [_place(fd)]  # one more: which those are
        self._waiting: list[list[str]] = []  # folders in each of them

    def run(self) -> None:
        self._waiting.append(self._delete_files())
        while True:
            if self._waiting[-1]:
                self._descend(self._waiting[-1].pop())
            elif self._way:
                self._ascend()
            else:
                return

    def _delete_files(self) -> list[str]:
        """All but the folders, whose names it answers."""
        folders = []
        with os.scandir(self.at) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                    continue
                try:
                    os.unlink(entry.name, dir_fd=self.at)
                except OSError as error:
                    self._note(error)
        return folders

    def _descend(self, name: str) -> None:
        """Into a folder; one that is empty just goes."""
        try:
            os.rmdir(name, dir_fd=self.at)
        except OSError:  # what comes next says why
            pass
        else:
            return
        try:
            below = openat2(self.at, name, _FOLDER, 0, _STAYS_HERE)
        except OSError as error:
            self._note(error)
            return
        os.close(self.at)
        self.at = below
        self._way.append(name)
        self._places.append(_place(below))
        self._waiting.append(self._delete_files())

    def _ascend(self) -> None:
        above = os.open("..", _FOLDER, dir_fd=self.at)
        os.close(self.at)
        self.at = above
        self._waiting.pop()
        self._places.pop()
        name = self._way.pop()
        if _place(above) != self._places[-1]:
            raise OSError(errno.ESTALE, "folder was moved while it was deleted", name)
        try:
            os.rmdir(name, dir_fd=above)
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self.problem = self.problem or error


def _place(folder: int) -> tuple[int, int]:
    info = os.fstat(folder)
    return info.st_dev, info.st_ino
