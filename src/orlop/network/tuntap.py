"""Interfaces whose packets a program reads and writes, see Linux' networking/tuntap.rst."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

KINDS = ("tun", "tap")
_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_FLAGS = {"tun": 0x1, "tap": 0x2}
_EXCLUSIVE = 0x8000
_REQUEST = struct.Struct("16sH22x")
_ETHERNET = 1


def make(name: str, kind: str) -> None:
    """One that stays, in this thread's network namespace.

    Raises OSError: EEXIST for a name that is taken, if only by one that nobody uses at the moment,
    which belongs to somebody nonetheless.
    """
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = _REQUEST.pack(name.encode(), _FLAGS[kind] | _EXCLUSIVE)
        try:
            fcntl.ioctl(device, _TUNSETIFF, request)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
    finally:
        os.close(device)


def kind(hardware: int) -> str:
    """Which of the two it is, by the interface's type of hardware."""
    return "tap" if hardware == _ETHERNET else "tun"
