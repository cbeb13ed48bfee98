"""Time limits that a slow but steady client meets, and a hanging one does not."""

from __future__ import annotations

import io
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

from orlop.errors import DataLoss

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PATIENCE = 60.0  # seconds that a client may take for nothing
_MIN_RATE = 4096  # bytes that earn it another second
_AT_ONCE = 256 << 10
_DRAIN_MAX = 32 << 20
_DRAIN_PATIENCE = 5.0


class Pace:
    """A deadline that progress moves on, up to `patience` seconds from now."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._deadline = 0.0
        self.begin()

    def begin(self) -> None:
        self._deadline = time.monotonic() + self._patience

    def earn(self, count: int) -> None:
        later = self._deadline + count / _MIN_RATE
        self._deadline = min(later, time.monotonic() + self._patience)

    def left(self) -> float:
        """Seconds until the deadline; raises TimeoutError past it."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        return left


class HeadTooLarge(Exception):
    """A request whose head does not end."""


class PacedReader(io.RawIOBase):
    """What a client sends, in time. `begin_head` bounds what comes before a body, in bytes."""

    def __init__(self, connection: socket.socket, head_max: int, patience: float) -> None:
        self._connection = connection
        self._head_max = head_max
        self._head_left: int | None = head_max
        self.pace = Pace(patience)

    def begin_head(self) -> None:
        self._head_left = self._head_max
        self.pace.begin()

    def end_head(self) -> None:
        self._head_left = None
        self.pace.begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._head_left is not None and self._head_left <= 0:
            raise HeadTooLarge
        self._connection.settimeout(self.pace.left())
        count = self._connection.recv_into(buffer)
        if self._head_left is not None:
            self._head_left -= count
        else:
            self.pace.earn(count)
        return count


def send(connection: socket.socket, data: bytes, patience: float) -> None:
    """Send all of a message; raises TimeoutError when it takes too long."""
    pace = Pace(patience)
    view = memoryview(data)
    for start in range(0, len(view), _AT_ONCE):
        piece = view[start : start + _AT_ONCE]
        connection.settimeout(pace.left())
        connection.sendall(piece)
        pace.earn(len(piece))


def send_file(connection: socket.socket, fd: int, start: int, length: int, patience: float) -> None:
    """Send a part of a file, with or without TLS.

    Pieces that stay in the processor's cache were a quarter faster than `sendfile` over loopback,
    whose receiver has a page at a time to copy.
    """
    pace = Pace(patience)
    buffer = memoryview(bytearray(min(length, _AT_ONCE)))
    end = start + length
    while start < end:
        count = os.preadv(fd, [buffer[: end - start]], start)
        if not count:
            raise DataLoss("a blob's file is shorter than its record says")
        connection.settimeout(pace.left())
        connection.sendall(buffer[:count])
        start += count
        pace.earn(count)


def drain(connection: socket.socket) -> None:
    """Say that nothing more comes, and drop what a client still sends: some of it, for a moment."""
    if not isinstance(connection, ssl.SSLSocket):
        connection.shutdown(socket.SHUT_WR)
    end = time.monotonic() + _DRAIN_PATIENCE
    left = _DRAIN_MAX
    while left > 0 and (seconds := end - time.monotonic()) > 0:
        connection.settimeout(seconds)
        dropped = len(connection.recv(_AT_ONCE))
        if not dropped:
            return
        left -= dropped
