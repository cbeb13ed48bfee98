"""File system calls: openat2 and file locks."""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path

from orlop.errors import FailedPrecondition
from orlop.sys.libc import call, syscall
from orlop.sys.libc import path as encode

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437  # the same number on every architecture


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` below `dirfd` with the RESOLVE_* rules of openat2(2); close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall(
        _SYS_OPENAT2,
        dirfd,
        ctypes.c_char_p(encode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
        about=path,
    )


def open_in_root(dirfd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if `dirfd` were `/`: no link, `..` or magic link leads out of it."""
    return openat2(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def filesystem_type(fd: int) -> int:
    """The magic number of the filesystem that a descriptor is on (statfs(2))."""
    buffer = (ctypes.c_long * 32)()
    call("fstatfs", fd, ctypes.byref(buffer), about="fstatfs")
    return int(buffer[0]) & 0xFFFFFFFF


def sync_filesystem(folder: str) -> None:
    """Write all that is in memory of a folder's filesystem to disk (syncfs(2)); OSError if not."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", fd, about=folder)
    finally:
        os.close(fd)


def lock_file(path: Path) -> int:
    """Take the lock file `path` for this process; the descriptor holds the lock while it is open.

    Raises FailedPrecondition, naming the holder's pid, when another process has it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise FailedPrecondition(f'"{path}" is locked by process {holder}') from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
