"""File system calls: openat2, and what is to be on disk."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from orlop.sys.libc import call, syscall
from orlop.sys.libc import path as encode

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that tell of the machine, and nothing of the file."""

_FICLONE = 0x40049409
_SYS_OPENAT2 = 437  # the same number on every architecture
_TRIES = 1000  # the tenth is hardly ever met, even beside a process that does nothing but rename


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` with the RESOLVE_* rules of openat2(2); close-on-exec.

    The kernel gives up on a `..` with EAGAIN if anything was renamed or mounted meanwhile, wherever
    on the machine: it is asked again.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    name = ctypes.c_char_p(encode(path))
    left = _TRIES
    while True:
        try:
            return syscall(_SYS_OPENAT2, dirfd, name, ctypes.byref(how), size, about=path)
        except BlockingIOError:
            left -= 1
            if not left:
                raise


def open_in_root(dirfd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if `dirfd` were `/`: no link, `..` or magic link leads out of it."""
    return openat2(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def filesystem_type(fd: int) -> int:
    """The magic number of the filesystem that a descriptor is on (statfs(2))."""
    buffer = (ctypes.c_long * 32)()
    call("fstatfs", fd, ctypes.byref(buffer), about="fstatfs")
    return int(buffer[0]) & 0xFFFFFFFF


def widen(pipe: int, size: int) -> None:
    """Let up to `size` bytes wait in a pipe, if that is allowed; whoever writes it waits less."""
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def clone(source: Path, path: Path) -> None:
    """Another file of the same blocks, 0600; OSError where the filesystem cannot (FICLONE)."""
    with source.open("rb") as old, path.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:
            path.unlink()
            raise
        os.fchmod(new.fileno(), 0o600)


def sync_filesystem(folder: str) -> None:
    """Write all that is in memory of a folder's filesystem to disk (syncfs(2)); OSError if not."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", fd, about=folder)
    finally:
        os.close(fd)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Have the names in a folder on disk as they are now."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
