"""Project ids of files, and what the files of one may take together (quotactl(2)): ext4 and xfs.

Whatever is made in a folder that gives its project on belongs to the same. Limits are absolute
numbers, 0 for none; both filesystems take the calls of the older one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from orlop.sys.libc import syscall

_SYS_QUOTACTL_FD = 443  # Linux 5.14, the same number on every architecture
_PROJECTS = 2
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5805  # Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTAT
_QUOTA = struct.Struct("=8QI4x")  # struct if_dqblk
_BLOCK = 1024
_VALID_LIMITS = 5
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD, of struct fs_quota_stat
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, …SETXATTR
_ATTRIBUTES = struct.Struct("=5I8s")  # struct fsxattr
_INHERITED = 0x200  # FS_XFLAG_PROJINHERIT


class Quota(NamedTuple):
    """Limits of a project, and what it has: bytes and inodes."""

    size_limit: int = 0
    inode_limit: int = 0
    size: int = 0
    inodes: int = 0


def enforced(path: str) -> bool:
    """Whether the filesystem of `path` keeps projects to their limits; OSError if it has none."""
    state = ctypes.create_string_buffer(256)
    _quotactl(path, _STATE, 0, state)
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _ENFORCED)


def quota(path: str, project: int) -> Quota:
    """Of a project on the filesystem of `path`; nothing is known of one that never was."""
    buffer = ctypes.create_string_buffer(_QUOTA.size)
    try:
        _quotactl(path, _GET, project, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return Quota()
        raise
    blocks, _, size, inode_limit, _, inodes, *_ = _QUOTA.unpack(buffer.raw)
    return Quota(blocks * _BLOCK, inode_limit, size, inodes)


def limit(path: str, project: int, size: int, inodes: int) -> None:
    """Set the limits of a project on the filesystem of `path`; sizes are rounded up to KiB."""
    blocks = -(-size // _BLOCK)
    told = _QUOTA.pack(blocks, blocks, 0, inodes, inodes, 0, 0, 0, _VALID_LIMITS)
    _quotactl(path, _SET, project, ctypes.create_string_buffer(told, _QUOTA.size))


def project_of(path: str) -> int:
    """The project of a folder; raises OSError (ENOTTY, EOPNOTSUPP) where there are none."""
    with _opened(path) as fd:
        return int(_attributes(fd)[3])


def give(path: str, project: int, *, inherited: bool = True) -> None:
    """Give a folder to a project, and what is going to be made in it if so."""
    with _opened(path) as fd:
        flags, extent, extents, _, copied, rest = _attributes(fd)
        flags = flags | _INHERITED if inherited else flags & ~_INHERITED
        told = _ATTRIBUTES.pack(flags, extent, extents, project, copied, rest)
        fcntl.ioctl(fd, _SET_ATTRIBUTES, told)


def _attributes(fd: int) -> tuple[int, int, int, int, int, bytes]:
    answer = fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    found: tuple[int, int, int, int, int, bytes] = _ATTRIBUTES.unpack(answer)
    return found


def _quotactl(path: str, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    with _opened(path) as fd:
        syscall(
            _SYS_QUOTACTL_FD,
            fd,
            ctypes.c_uint(command << 8 | _PROJECTS),
            ctypes.c_uint(project),
            ctypes.byref(buffer),
            about=path,
        )


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
