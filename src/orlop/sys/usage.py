"""What a tree of files takes on disk, also one that others change meanwhile, on purpose even."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from orlop.sys.walking import Place, walk

BLOCK = 512
"""Bytes of what a status tells in blocks."""


def disk_usage(folder: str) -> tuple[int, int]:
    """Bytes in blocks and inodes of a tree, its root included; hard links count once.

    As for `look_through`.
    """
    counter = _Counter()
    look_through(folder, counter.add)
    return counter.size, counter.count


def look_through(folder: str, see: Callable[[os.stat_result], None]) -> None:
    """Show `see` all that is in a tree, its root included.

    No link is followed, and what goes meanwhile does not count. A tree may be deeper than a path
    can be long. Raises OSError where the folder or one below it cannot be read.
    """

    def look(fd: int, _place: Place) -> Iterator[str]:
        see(os.fstat(fd))
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    yield entry.name  # and is seen when it is looked into
                else:
                    see(about)

    walk(folder, look, changing=True)


class _Counter:
    """What a walk has met."""

    def __init__(self) -> None:
        self.size = self.count = 0
        self._linked: set[int] = set()  # what may be met once more

    def add(self, about: os.stat_result) -> None:
        if about.st_nlink > 1 and not stat.S_ISDIR(about.st_mode):
            if about.st_ino in self._linked:
                return
            self._linked.add(about.st_ino)
        self.size += about.st_blocks * BLOCK
        self.count += 1
