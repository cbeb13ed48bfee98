"""Filesystems in files: mounted as they are where the kernel can, by a loop device elsewhere."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from pathlib import Path
from typing import NamedTuple

from orlop.sys.fs import SCARCE
from orlop.sys.mount import MS_RDONLY, mount

_CONTROL = "/dev/loop-control"
_WHOLE = re.compile(r"/dev/loop[0-9]+")  # others are partitions

_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_SET_STATUS, _LOOP_GET_STATUS = 0x4C04, 0x4C05  # of 64 bits
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
_TRIES = 64  # others take devices at the same time, and remove them
_TAKEN = (errno.EBUSY, errno.ENXIO, errno.ENODEV, errno.ENOENT)


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


class Device(NamedTuple):
    """A loop device that is held open: it lives as long as somebody does so, or has it mounted."""

    path: str
    fd: int

    def close(self) -> None:
        os.close(self.fd)


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
    device = attach(image, read_only=True)
    try:
        mount(device.path, target, kind, MS_RDONLY)
    finally:
        device.close()  # and who has mounted it holds it


def attach(image: Path, *, read_only: bool) -> Device:
    """A loop device that shows a file, and goes with its last user; raises OSError."""
    access = os.O_RDONLY if read_only else os.O_RDWR
    file = os.open(image, access | os.O_CLOEXEC)
    try:
        flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
        config = _Config(fd=file, info=_Info(flags=flags))
        config.info.file_name[:] = os.fsencode(image)[:63].ljust(64, b"\0")
        return _configured(config, access)
    finally:
        os.close(file)


def attach_to_mount(image: Path) -> Device:
    """The device that shows a file, whole and to be written, already, or one made for that.

    A file that has been unmounted may have its device, and its filesystem, still: wherever somebody
    has a copy of the host's mounts. What another device wrote meanwhile the first would spoil.
    Raises OSError.
    """
    lock = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would not see each other's
        return _writer_of(image.stat()) or attach(image, read_only=False)
    finally:
        os.close(lock)


def _writer_of(file: os.stat_result) -> Device | None:
    for path in filter(_WHOLE.fullmatch, map(str, Path("/dev").iterdir())):
        try:
            device = Device(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in SCARCE:
                raise
            continue  # it has just gone
        try:
            info = _info_of(device.fd)
            whole = not (info.flags & _READ_ONLY or info.offset or info.sizelimit)
            if whole and (info.device, info.inode) == (file.st_dev, file.st_ino):
                return device
        except OSError:
            pass  # it shows nothing
        device.close()
    return None


def _configured(config: _Config, access: int) -> Device:
    """The first free device, for others take them at the same time."""
    for _ in range(_TRIES):
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        path = f"/dev/loop{number}"
        try:
            return Device(path, _open_configured(path, access, config))
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            problem = error.strerror
    raise OSError(errno.EBUSY, f'loop device "{path}" cannot be had: {problem}')


def _open_configured(path: str, access: int, config: _Config) -> int:
    device = os.open(path, access | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
    except OSError:
        os.close(device)
        raise
    return device


def keep(device: Device) -> None:
    """Have it stay without a user, until `detach`."""
    info = _info_of(device.fd)
    info.flags &= ~_AUTOCLEAR
    fcntl.ioctl(device.fd, _LOOP_SET_STATUS, bytes(info))


def identity(device: Device) -> str:
    """What a device shows, for `shows`."""
    return _identity(_info_of(device.fd))


def shows(device: str, identity: str) -> bool:
    """Whether a device shows the file that it was made for, and not another by now."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _identity(_info_of(fd)) == identity
    except OSError:
        return False  # it shows none
    finally:
        os.close(fd)


def _info_of(fd: int) -> _Info:
    return _Info.from_buffer_copy(fcntl.ioctl(fd, _LOOP_GET_STATUS, bytes(_Info())))


def _identity(info: _Info) -> str:
    """The file's filesystem and inode: its name may change, and go."""
    return f"{info.device}:{info.inode}"


def detach(device: str) -> None:
    """End a device that was kept, once its last user has gone; raises OSError."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    finally:
        os.close(fd)
