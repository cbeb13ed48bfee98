"""Signals and socket pairs without the enums that `signal` and `socket` put around them.

Each wrapped call reads and writes objects all over the heap, and a forked process that only waits
would own a third of a megabyte more for it. For such processes, and nobody else.
"""

from __future__ import annotations

import os
import struct
from _signal import SIG_DFL, SIG_IGN, set_wakeup_fd, signal  # type: ignore[import-not-found]
from _socket import AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET
from _socket import socket as Socket  # noqa: N812 - it is a class
from _socket import socketpair as _socketpair
from collections.abc import Sequence

__all__ = [
    "SIG_DFL",
    "SIG_IGN",
    "Socket",
    "receive",
    "send",
    "seqpacket_pair",
    "set_name",
    "set_wakeup_fd",
    "signal",
]

_INT = 4


def seqpacket_pair() -> tuple[Socket, Socket]:
    """Two connected ends that keep messages apart (unix(7), SOCK_SEQPACKET)."""
    return _socketpair(AF_UNIX, SOCK_SEQPACKET)


def send(end: Socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message, and descriptors with it."""
    packed = struct.pack(f"{len(fds)}i", *fds)
    end.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, packed)] if fds else [])


def receive(end: Socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """One message of at most `size` bytes and `count` descriptors, which close on exec."""
    data, ancillary, _, _ = end.recvmsg(size, CMSG_SPACE(count * _INT))
    fds: list[int] = []
    for _, _, packed in ancillary:
        fds += memoryview(packed[: len(packed) // _INT * _INT]).cast("i").tolist()
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, fds


def set_name(name: str) -> None:
    """Set what `ps` shows of this process, cut to 15 bytes."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode())
    finally:
        os.close(fd)
