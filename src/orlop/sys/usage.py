"""What a tree of files takes on disk, also one that others change meanwhile, on purpose even."""

from __future__ import annotations

import errno
import os
import stat

from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_BLOCK = 512
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_RULES = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
# Characters of a path; a name of up to 255, of up to four bytes each, comes to it.
_PATH_MAX = 700


def disk_usage(folder: str) -> tuple[int, int]:
    """Bytes in blocks and inodes of a tree, its root included; hard links count once.

    No link is followed, and what goes meanwhile does not count. A tree may be deeper than a path
    can be long. Raises OSError where the folder or one below it cannot be read.
    """
    root = _Folder(os.open(folder, _FOLDER | os.O_CLOEXEC))
    about = os.fstat(root.fd)
    size, count = about.st_blocks * _BLOCK, 1
    linked: set[int] = set()  # what may be met once more
    waiting = [(root, ".")]
    while waiting:
        base, path = waiting.pop()
        fd = _open(base.fd, path)
        if fd < 0:
            continue
        here = _Folder(fd)
        if len(path) > _PATH_MAX:
            base, path = here, "."
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    about = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(about.st_mode):
                    waiting.append((base, f"{path}/{entry.name}"))
                elif about.st_nlink > 1:
                    if about.st_ino in linked:
                        continue
                    linked.add(about.st_ino)
                size += about.st_blocks * _BLOCK
                count += 1
    return size, count


class _Folder:
    """An open folder, closed when nothing below it waits any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _open(root: int, path: str) -> int:
    """A folder of the tree; -1 where there is none any more."""
    try:
        return openat2(root, path, _FOLDER, 0, _RULES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise
