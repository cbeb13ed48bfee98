"""Terminals: receive the console's master end from runc, copy its output, set its size."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from typing import Any

from orlop.errors import Unknown
from orlop.shim.files import remove
from orlop.shim.loop import Loop, Task
from orlop.shim.rest import NONE, Luggage
from orlop.shim.stdio import Copy, Sink

PATIENCE = 5.0
"""Seconds that runc may take to send the console after it has ended."""


class ConsoleSocket:
    """The socket in `folder` over which runc sends the master end of the pseudo-terminal.

    The path that runc gets leads through /proc, since a socket's path holds 107 bytes only and a
    bundle's may be longer.
    """

    def __init__(self, loop: Loop, folder: str, name: str) -> None:
        self._loop = loop
        self._task: Task[int] | None = None
        self._taken = False
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._folder}/{name}"
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.bind(self.path)
            self._socket.listen(1)
            self._socket.setblocking(False)
        except OSError:
            self.close()
            raise
        self._task = loop.spawn(self._receive())

    async def master(self) -> int:
        """The master end, which is the caller's then; raises Unknown if runc sent none."""
        assert self._task is not None
        if not await self._loop.within(PATIENCE, self._task):
            raise Unknown("the runtime did not send a console")
        self._taken = True
        return self._task.result()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            if not self._taken and not self._task.failed:
                os.close(self._task.result())
        self._socket.close()
        remove(self.path)
        os.close(self._folder)

    async def _receive(self) -> int:
        await self._loop.readable(self._socket.fileno())
        connection, _ = self._socket.accept()
        with connection:
            connection.setblocking(False)
            await self._loop.readable(connection.fileno())
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        if not fds:
            raise Unknown("the runtime sent no console")
        os.set_inheritable(fds[0], False)
        return fds[0]


class Console:
    """The master end of a process's terminal; copies its output to a sink."""

    def __init__(self, loop: Loop, master: int, sink: Sink, *, ended: bool = False) -> None:
        self._master = master
        if master != NONE:
            os.set_blocking(master, False)
        self._copy = Copy(loop, master, sink, ended=ended)

    def freeze(self, luggage: Luggage) -> list[Any]:
        """What `thaw` makes it from again; Busy while output is in this process's hands."""
        return [luggage.put(self._master), self._copy.freeze()]

    @classmethod
    def thaw(cls, loop: Loop, luggage: Luggage, state: list[Any], sink: Sink) -> Console:
        master, copying = state
        return cls(loop, luggage.claim(master), sink, ended=not copying)

    def resize(self, width: int, height: int) -> None:
        """Set the size in characters, modulo 65536; no effect after the terminal is gone."""
        if self._master != NONE:
            size = struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def input(self) -> int:
        """A descriptor of its own for what is typed."""
        return os.dup(self._master)

    async def drained(self) -> None:
        """Wait until all output has been copied: every process has closed the terminal."""
        await self._copy.ended()

    def close(self) -> None:
        self._copy.cancel()
        if self._master != NONE:
            os.close(self._master)
            self._master = NONE
