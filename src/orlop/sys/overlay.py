"""Overlay mounts with more layers than the one page of options that mount(2) takes.

Where the kernel has it (6.7), the new mount API takes one `lowerdir+` after the other. Elsewhere
the layers are named relative to the folder that they share, from a thread with a working directory
of its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from orlop.sys.libc import call, syscall
from orlop.sys.libc import path as encode

# The same numbers on every architecture.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_OPEN_TREE_CLONE = 1
_AT_FDCWD = -100
_CLONE_FS = 0x200

_LOWER = "lowerdir="


def mount_long(target: Path, flags: int, data: Sequence[str]) -> None:
    """Mount an overlay at `target` with the filesystem options `data`, however long."""
    try:
        context = syscall(
            _SYS_FSOPEN, ctypes.c_char_p(b"overlay"), _FSOPEN_CLOEXEC, about="overlay"
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _mount_relative(target, flags, data)
        return
    try:
        if not _configure(context, data):
            _mount_relative(target, flags, data)
            return
        mounted = syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, flags, about=str(target))
    finally:
        os.close(context)
    try:
        move_mount(mounted, target)
    finally:
        os.close(mounted)


def clone_tree(source: str, about: str) -> int:
    """A descriptor of a second mount of what is at `source`, which is nowhere yet."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    return syscall(_SYS_OPEN_TREE, _AT_FDCWD, ctypes.c_char_p(encode(source)), flags, about=about)


def move_mount(tree: int, target: Path) -> None:
    """Put a mount that is nowhere yet, by its descriptor, at `target`."""
    syscall(
        _SYS_MOVE_MOUNT,
        tree,
        ctypes.c_char_p(b""),
        _AT_FDCWD,
        ctypes.c_char_p(encode(target)),
        _MOVE_MOUNT_F_EMPTY_PATH,
        about=str(target),
    )


def _configure(context: int, data: Sequence[str]) -> bool:
    """Hand the options to the kernel; False when it does not know `lowerdir+`."""
    for option in data:
        if option.startswith(_LOWER):
            for lower in option.removeprefix(_LOWER).split(":"):
                try:
                    _set(context, "lowerdir+", lower)
                except OSError as error:
                    if error.errno == errno.EINVAL:
                        return False
                    raise
            continue
        key, equals, value = option.partition("=")
        _set(context, key, value if equals else None)
    syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, about="overlay")
    return True


def _set(context: int, key: str, value: str | None) -> None:
    syscall(
        _SYS_FSCONFIG,
        context,
        _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING,
        ctypes.c_char_p(key.encode()),
        None if value is None else ctypes.c_char_p(encode(value)),
        0,
        about=f"{key}={value}",
    )


def _mount_relative(target: Path, flags: int, data: Sequence[str]) -> None:
    lowers = next(o for o in data if o.startswith(_LOWER)).removeprefix(_LOWER).split(":")
    common = os.path.commonpath(lowers)
    short = ":".join(os.path.relpath(lower, common) for lower in lowers)
    options = ",".join(_LOWER + short if o.startswith(_LOWER) else o for o in data)
    where = os.path.abspath(target)  # noqa: PTH100 - resolved before the thread moves
    failure: list[OSError] = []

    def mount() -> None:
        try:
            call("unshare", _CLONE_FS, about="unshare")
            os.chdir(common)
            call(
                "mount",
                ctypes.c_char_p(b"overlay"),
                ctypes.c_char_p(encode(where)),
                ctypes.c_char_p(b"overlay"),
                ctypes.c_ulong(flags),
                ctypes.c_char_p(encode(options)),
                about=where,
            )
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=mount, name="orlop-mount")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
