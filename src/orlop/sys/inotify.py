"""inotify(7): wait for something to happen to a file."""

from __future__ import annotations

import ctypes
import os

from orlop.sys.libc import call

IN_MODIFY = 0x2
IN_OPEN = 0x20
IN_MOVE_SELF = 0x800


def open_inotify() -> int:
    """A non-blocking, close-on-exec inotify descriptor; readable when an event is there."""
    return call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch `path`; raises OSError with the path."""
    return call(
        "inotify_add_watch",
        fd,
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint32(mask),
        about=path,
    )


def remove_watch(fd: int, watch: int) -> None:
    """End a watch, of which an event tells; raises OSError if there is none."""
    call("inotify_rm_watch", fd, watch)
