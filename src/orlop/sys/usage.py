"""What a tree of files takes on disk, also one that others change meanwhile, on purpose even."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from orlop.sys.walking import Place, walk

_BLOCK = 512


def disk_usage(folder: str) -> tuple[int, int]:
    """Bytes in blocks and inodes of a tree, its root included; hard links count once.

    No link is followed, and what goes meanwhile does not count. A tree may be deeper than a path
    can be long. Raises OSError where the folder or one below it cannot be read.
    """
    counter = _Counter()
    walk(folder, counter.look, changing=True)
    return counter.size, counter.count


class _Counter:
    """What a walk has met; folders are counted as they are looked into."""

    def __init__(self) -> None:
        self.size = self.count = 0
        self._linked: set[int] = set()  # what may be met once more

    def look(self, fd: int, _place: Place) -> Iterator[str]:
        self._add(os.fstat(fd))
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    yield entry.name
                elif about.st_nlink == 1 or about.st_ino not in self._linked:
                    if about.st_nlink > 1:
                        self._linked.add(about.st_ino)
                    self._add(about)

    def _add(self, about: os.stat_result) -> None:
        self.size += about.st_blocks * _BLOCK
        self.count += 1
