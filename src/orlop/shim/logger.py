"""Logger processes: `binary://` stdio.

The program gets stdout on descriptor 3, stderr on 4, and tells that it is ready by closing 5. It
finds CONTAINER_ID and CONTAINER_NAMESPACE in its environment, and the query of the URI as
arguments, key and value in turn.
"""

from __future__ import annotations

import fcntl
import os
import signal
from urllib.parse import parse_qsl, unquote, urlsplit

from orlop.errors import Unknown
from orlop.shim.children import Children, Exit
from orlop.shim.loop import Loop, Promise
from orlop.shim.runc import NULL, spawn
from orlop.shim.stdio import Sink

PATIENCE = 10.0
"""Seconds that a logger has to end by itself, after its input has ended and again after SIGTERM."""
FIRST_FREE_FD = 6


class LoggerSink(Sink):
    """A pipe into a logger process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def child_has_it(self) -> None:
        self.close()

    async def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self.fd != NULL:
            os.close(self.fd)
            self.fd = NULL


class Logger:
    """One logger process and the two sinks that lead into it."""

    def __init__(self, loop: Loop, pid: int, exited: Promise[Exit], fds: tuple[int, int]) -> None:
        self._loop = loop
        self._pid = pid
        self._exited = exited
        self.stdout = LoggerSink(fds[0])
        self.stderr = LoggerSink(fds[1])

    @classmethod
    async def start(
        cls,
        loop: Loop,
        children: Children,
        uri: str,
        *,
        namespace: str,
        container: str,
        copied: bool,
    ) -> Logger:
        """Start the program and wait until it is ready; Unknown if it cannot be started.

        `copied` tells that this process writes to it (from a console), and must not block.
        """
        out_reader, out_writer = _pipe()
        err_reader, err_writer = _pipe()
        ready_reader, ready_writer = _pipe()
        env = {
            b"CONTAINER_ID": container.encode(),
            b"CONTAINER_NAMESPACE": namespace.encode(),
        }
        argv = arguments(uri)
        try:
            fds = {0: NULL, 1: NULL, 2: NULL, 3: out_reader, 4: err_reader, 5: ready_writer}
            pid = spawn(argv, fds, env)
        except OSError as error:
            for fd in (out_writer, err_writer, ready_reader):
                os.close(fd)
            reason = (error.strerror or str(error)).lower()
            raise Unknown(f'start logger "{argv[0]}": {reason}') from error
        finally:
            for fd in (out_reader, err_reader, ready_writer):
                os.close(fd)
        os.set_blocking(out_writer, not copied)
        logger = cls(loop, pid, children.exit_of(pid), (out_writer, err_writer))
        try:
            await loop.readable(ready_reader)
        finally:
            os.close(ready_reader)
        return logger

    async def finish(self) -> None:
        """After its input has ended: wait for the process, and end it if it does not."""
        self.stdout.close()
        self.stderr.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._loop.within(PATIENCE, self._exited):
                return
            os.kill(self._pid, number)


def arguments(uri: str) -> list[str]:
    """The argument vector of a `binary://` URI."""
    parts = urlsplit(uri)
    argv = [unquote(parts.path)]
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        argv += [key, value] if value else [key]
    return argv


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are above those that the logger is given."""
    ends = os.pipe2(os.O_CLOEXEC)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in ends]
    for fd in ends:
        os.close(fd)
    return high[0], high[1]
