"""What unpacking asks of single files, and gives them: by descriptors, or names in a folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from orlop.tar import names, zeros

_NO_XATTR = (errno.ENOTSUP, errno.EOPNOTSUPP)


def names_in(folder: int) -> list[bytes]:
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(fd) as entries:
            return [os.fsencode(entry.name) for entry in entries]
    finally:
        os.close(fd)


def is_folder(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def remove_acls(fd: int) -> None:
    try:
        there = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NO_XATTR:
            return
        raise
    for key in there:
        if key in (names.ACCESS_ACL, names.DEFAULT_ACL):
            os.removexattr(fd, key)


def set_xattr(target: int | bytes, key: str, value: bytes, *, user: bool) -> None:
    """Where the filesystem has none, or the kernel none of that kind here, go without."""
    if key.startswith(names.OVERLAY_XATTRS):
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        without = error.errno in _NO_XATTR
        if not without and not (
            error.errno == errno.EPERM and key.startswith("user.") and not user
        ):
            raise


def write(fd: int, content: Iterator[memoryview]) -> bool:
    """Write all but runs of zeros; whether it ends with such, and the file is too short so far."""
    hole = False
    for piece in content:
        hole = zeros.are_hole(piece)
        if hole:
            os.lseek(fd, len(piece), os.SEEK_CUR)
            continue
        rest = piece
        while rest:
            rest = rest[os.write(fd, rest) :]
    return hole
