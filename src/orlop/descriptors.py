"""The descriptors that a process is given by whoever starts it."""

from __future__ import annotations

import os
import sys


def open_standard() -> None:
    """Have the descriptors 0 to 2 open: those that were closed are /dev/null, as in Go's programs.

    Programs call this before anything else. What they open next, a socket say, would else become
    one of these, and be sent what is printed.
    """
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if not is_open(fd):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
