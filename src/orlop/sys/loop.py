"""Filesystems in files: mounted as they are where the kernel can, by a loop device elsewhere."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

from orlop.sys.mount import MS_RDONLY, mount

_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
_TRIES = 64  # others take devices at the same time


class _Info(ctypes.Structure):
    """struct loop_info64 (linux/loop.h)."""

    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sizelimit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_uint8 * 64),
        ("crypt_name", ctypes.c_uint8 * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class _Config(ctypes.Structure):
    """struct loop_config."""

    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info),
        ("reserved", ctypes.c_uint64 * 8),
    )


def mount_image(image: Path, target: Path, kind: str) -> None:
    """Mount the file `image` read-only at `target`; raises OSError.

    Only erofs can do without a device, since Linux 6.12.
    """
    try:
        mount(str(image), target, kind, MS_RDONLY)
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
        _mount_by_device(image, target, kind)


def _mount_by_device(image: Path, target: Path, kind: str) -> None:
    with image.open("rb") as file:
        device, path = _attach(file.fileno())
    try:
        mount(path, target, kind, MS_RDONLY)
    finally:
        os.close(device)  # and who has mounted it holds it


def _attach(fd: int) -> tuple[int, str]:
    """A read-only device of a file, which goes with its last user, and its path."""
    config = _Config(fd=fd, info=_Info(flags=_READ_ONLY | _AUTOCLEAR))
    for _ in range(_TRIES):
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        path = f"/dev/loop{number}"
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
            continue
        return device, path
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
