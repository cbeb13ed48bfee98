"""What is of btrfs alone (linux/btrfs.h): subvolumes, made, copied at once, and deleted whole."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_SUBVOL_CREATE = 0x5000940E
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_FS_INFO = 0x8400941F
_QGROUP_LIMIT = 0x8030942B
_LIMIT_EXCLUSIVE = 2
_ARGS = struct.Struct("=q4088s")
_LIMITS = struct.Struct("=6Q")
_ARGS_V2 = struct.Struct("=qQQ32x4040s")


def check(folder: Path) -> None:
    """Raises OSError (ENOTTY) for a folder that is not on btrfs."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FS_INFO, bytearray(1024))
    except OSError as error:
        raise OSError(error.errno, f"it is not on btrfs: {error.strerror}", str(folder)) from None
    finally:
        os.close(fd)


def create(path: Path) -> None:
    """An empty subvolume."""
    _tell(path, _SUBVOL_CREATE, _ARGS.pack(0, os.fsencode(path.name)))


def snapshot(source: Path, path: Path) -> None:
    """A writable subvolume with all that the subvolume `source` has, and shares."""
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _tell(path, _SNAP_CREATE_V2, _ARGS_V2.pack(fd, 0, 0, os.fsencode(path.name)))
    finally:
        os.close(fd)


def delete(path: Path) -> None:
    """A subvolume, with all that is in it but other subvolumes."""
    _tell(path, _SNAP_DESTROY, _ARGS.pack(0, os.fsencode(path.name)))


def limit(path: Path, size: int) -> None:
    """Let a subvolume have at most `size` bytes that no other has.

    Raises OSError, ENOTCONN where quotas are not enabled.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Group 0 is that of the subvolume.
        fcntl.ioctl(fd, _QGROUP_LIMIT, _LIMITS.pack(0, _LIMIT_EXCLUSIVE, 0, size, 0, 0))
    finally:
        os.close(fd)


def _tell(path: Path, request: int, arguments: bytes) -> None:
    """Make a request about a name in its folder."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, bytearray(arguments))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)
