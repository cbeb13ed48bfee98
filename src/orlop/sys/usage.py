"""What a tree of files takes on disk, also one that others change meanwhile, on purpose even."""

from __future__ import annotations

import errno
import os
import stat

from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_BLOCK = 512
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_RULES = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def disk_usage(folder: str) -> tuple[int, int]:
    """Bytes in blocks and inodes of a tree, its root included; hard links count once.

    No link is followed, and what goes meanwhile does not count. Raises OSError where the folder or
    one below it cannot be read.
    """
    root = os.open(folder, _FOLDER | os.O_CLOEXEC)
    try:
        return _usage(root)
    finally:
        os.close(root)


def _usage(root: int) -> tuple[int, int]:
    about = os.fstat(root)
    seen, size = {about.st_ino}, about.st_blocks * _BLOCK
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        fd = _open(root, path)
        if fd < 0:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        about = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if about.st_ino in seen:
                        continue
                    seen.add(about.st_ino)
                    size += about.st_blocks * _BLOCK
                    if stat.S_ISDIR(about.st_mode):
                        waiting.append(f"{path}/{entry.name}")
        finally:
            os.close(fd)
    return size, len(seen)


def _open(root: int, path: str) -> int:
    """A folder of the tree; -1 where there is none any more."""
    try:
        return openat2(root, path, _FOLDER, 0, _RULES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise
