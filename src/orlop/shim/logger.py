"""Logger processes: `binary://` stdio.

The program gets stdout on descriptor 3, stderr on 4, and tells that it is ready by closing 5. It
finds CONTAINER_ID and CONTAINER_NAMESPACE in its environment, and the query of the URI as
arguments, key and value in turn, except for `env.NAME`, which are variables. orlop's own log writer
is forked from the keeper instead: it shares its memory, and need not start.

The shim keeps the pipes' read ends, so that a container outlives its logger: it never gets SIGPIPE,
and what it prints waits in the pipes. A logger that dies is started again; after `TRIES` early
deaths the output is thrown away instead, so that the container is not held up for ever.
"""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from orlop.errors import InvalidArgument, Unknown
from orlop.logger import main as own_logger
from orlop.logger import options
from orlop.shim.children import Children, Exit, send_signal
from orlop.shim.files import read_or_empty
from orlop.shim.log import Log
from orlop.shim.loop import Loop, Promise, Task
from orlop.shim.rest import NONE, Busy, Luggage
from orlop.shim.runc import NULL, spawn
from orlop.shim.stdio import CHUNK, Sink
from orlop.sys import bare

START_PATIENCE = 15.0
"""Seconds in which a logger must be ready."""
REASON_PATIENCE = 0.5
PATIENCE = 10.0
"""Seconds that a logger has to end by itself, after its input has ended and again after SIGTERM."""
TRIES = 5
STEADY = 10.0
"""Seconds of life after which a logger's death is the first one again."""
FIRST_DELAY = 0.1
FIRST_FREE_FD = 6
_VARIABLE = "env."


class LoggerSink(Sink):
    """A pipe into a logger process."""

    kind = "logger"

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


class Program:
    """What a `binary://` URI names. Raises InvalidArgument for one that names nothing."""

    def __init__(self, uri: str, namespace: str, container: str) -> None:
        self.origin = uri, namespace, container
        self.argv, env = command(uri)
        own = {"CONTAINER_ID": container, "CONTAINER_NAMESPACE": namespace}
        self._env = {key.encode(): value.encode() for key, value in {**env, **own}.items()}

    async def start(self, children: Children, fds: dict[int, int]) -> int:
        """Start it with the descriptors `{target: source}`; its pid. Raises OSError."""
        if self.argv[0].rpartition("/")[2] == options.NAME:
            arguments = list(zip(self.argv[1::2], self.argv[2::2], strict=True))
            request = marshal.dumps((arguments, list(fds)))
            return await children.fork(request, list(fds.values()))
        return spawn(self.argv, fds, self._env, own_group=True)


class Logger:
    """A logger, started again when it dies, and the two sinks that lead into it."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        log: Log,
        program: Program,
        pipes: Sequence[tuple[int, int]],
    ) -> None:
        self._loop = loop
        self._children = children
        self._log = log
        self._program = program
        self._leaving = False
        self._pid = 0
        self._began = 0.0
        self._failures = 0
        self._readers = [reader for reader, _ in pipes if reader != NULL]
        self.stdout, self.stderr = (LoggerSink(writer) for _, writer in pipes)
        self._task: Task[None] | None = None

    def freeze(self, luggage: Luggage) -> dict[str, Any]:
        """What `thaw` makes it from again; Busy while it is being started again, or replaced."""
        ended = self._task is not None and self._task.done
        if not ended and not self._pid and not self._given_up:
            raise Busy
        pipes = zip(self._readers or (NULL, NULL), (self.stdout.fd, self.stderr.fd), strict=True)
        return {
            "origin": self._program.origin,
            "ended": ended,
            "pid": 0 if ended else self._pid,
            "began": self._began,
            "failures": self._failures,
            "pipes": [[luggage.put(NONE if fd == NULL else fd) for fd in pipe] for pipe in pipes],
        }

    @classmethod
    def thaw(
        cls, loop: Loop, children: Children, log: Log, luggage: Luggage, state: dict[str, Any]
    ) -> Logger:
        def claim(number: int) -> int:
            return NULL if number == NONE else luggage.claim(number)

        pipes = [(claim(reader), claim(writer)) for reader, writer in state["pipes"]]
        self = cls(loop, children, log, Program(*state["origin"]), pipes)
        self._pid, self._began, self._failures = (
            state[name] for name in ("pid", "began", "failures")
        )
        exited: Promise[Exit] = Promise(loop)
        if self._pid:
            exited = children.exit_of(self._pid)
        elif state["ended"]:
            self._leaving = True
            exited.resolve(Exit(0, 0))
        else:
            self._task = loop.spawn(self._drain())
            return self
        self._task = loop.spawn(self._watch(exited))
        return self

    @property
    def _given_up(self) -> bool:
        return self._failures > TRIES

    @classmethod
    async def start(
        cls,
        loop: Loop,
        children: Children,
        log: Log,
        uri: str,
        *,
        namespace: str,
        container: str,
        copied: bool,
    ) -> Logger:
        """Start the program and wait until it is ready; Unknown if it does not come to that.

        `copied` tells that this process writes to it (from a console), and must not block.
        """
        program = Program(uri, namespace, container)
        logger = cls(loop, children, log, program, (_pipe(), _pipe()))
        os.set_blocking(logger.stdout.fd, not copied)
        try:
            exited = await logger._begin()
        except BaseException:
            logger._close_pipes()
            raise
        logger._task = loop.spawn(logger._watch(exited))
        return logger

    async def finish(self) -> None:
        """After its input has ended: wait for the process, and end it if it does not."""
        self.stdout.close()
        self.stderr.close()
        assert self._task is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._loop.within(PATIENCE, self._task):
                return
            self._kill(number)

    def close(self) -> None:
        """End it at once, unless it has ended; for what was never started."""
        self.stdout.close()
        self.stderr.close()
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        assert self._task is not None
        self._leaving = True
        if self._pid:
            _signal(self._pid, number)
        else:
            self._task.cancel()

    async def _begin(self) -> Promise[Exit]:
        name = self._program.argv[0]
        ready, ready_writer = _pipe()
        try:
            try:
                exited = await self._launch(ready_writer)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise Unknown(f'start logger "{name}": {reason}') from error
            finally:
                os.close(ready_writer)
            if not await self._readable(ready, START_PATIENCE):
                _signal(self._pid, signal.SIGKILL)
                raise Unknown(f'logger "{name}" is not ready after {START_PATIENCE:g} s')
            reason = os.read(ready, CHUNK).decode(errors="replace").strip()
            if reason:  # either it is ready, which a byte tells as well, or this is why it ends
                await self._readable(ready, REASON_PATIENCE)
            if exited.done or _is_dying(self._pid):
                status = (await exited).status
                raise Unknown(
                    f'logger "{name}" ended before it was ready: {reason or f"status {status}"}'
                )
        finally:
            os.close(ready)
        return exited

    async def _readable(self, fd: int, limit: float) -> bool:
        readable = self._loop.watch(fd, select.EPOLLIN)
        try:
            return await self._loop.within(limit, readable)
        finally:
            self._loop.unwatch(fd, readable)

    async def _launch(self, ready: int) -> Promise[Exit]:
        stdout, stderr = self._readers
        fds = {0: NULL, 1: NULL, 2: NULL, 3: stdout, 4: stderr, 5: ready}
        self._pid = await self._program.start(self._children, fds)
        self._began = time.monotonic()
        return self._children.exit_of(self._pid)

    async def _watch(self, exited: Promise[Exit]) -> None:
        """Start it again as often as it dies before its input has ended."""
        try:
            while True:
                ended = await exited
                self._pid = 0  # it may be another's now
                if self._leaving or not any(map(_is_in_use, self._readers)):
                    return
                steady = time.monotonic() - self._began > STEADY
                self._failures = 0 if steady else self._failures + 1
                name = self._program.argv[0]
                self._log.warning("logger has ended", logger=name, status=ended.status)
                if self._given_up:
                    self._log.error("logger is given up, output is thrown away", logger=name)
                    await self._drain()
                    return
                if self._failures > 1:
                    await self._loop.sleep(FIRST_DELAY * 2 ** (self._failures - 2))
                exited = await self._again()
        finally:
            self._close_pipes()

    async def _again(self) -> Promise[Exit]:
        try:
            return await self._launch(NULL)  # nobody waits until it is ready
        except OSError as error:
            self._log.warning(f"logger cannot be started: {error}")
            failed: Promise[Exit] = Promise(self._loop)
            failed.resolve(Exit(127, time.time_ns()))
            return failed

    async def _drain(self) -> None:
        for reader in self._readers:
            os.set_blocking(reader, False)
        both = [self._loop.spawn(self._discard(reader)) for reader in self._readers]
        try:
            for each in both:
                await each
        finally:
            for each in both:
                each.cancel()
            self._close_pipes()

    async def _discard(self, reader: int) -> None:
        while await self._loop.read(reader, CHUNK):
            pass

    def _close_pipes(self) -> None:
        self.stdout.close()
        self.stderr.close()
        for reader in self._readers:
            os.close(reader)
        self._readers = []


def command(uri: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and variables of a `binary://` URI; of a key's values the first one counts."""
    parts = urlsplit(uri)
    argv, env = [unquote(parts.path)], {}
    if not argv[0]:
        raise InvalidArgument(f'stdio "{uri}" names no program')
    for key, values in parse_qs(parts.query, keep_blank_values=True).items():
        if key.startswith(_VARIABLE):
            env[key.removeprefix(_VARIABLE)] = values[0]
        else:
            argv += [key, values[0]]
    return argv, env


def helper(request: bytes, fds: list[int]) -> int:
    """Be orlop's log writer, in a fork of the keeper; `fds` are those of `Program.start`."""
    gc.disable()
    arguments, targets = marshal.loads(request)
    # Out of each other's way first: a source may be another's target.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FREE_FD) for fd in fds]
    for target, source in zip(targets, high, strict=True):
        os.dup2(source, target)
    os.closerange(max(targets) + 1, os.sysconf("SC_OPEN_MAX"))
    bare.set_name(options.NAME)
    return own_logger.serve(dict(arguments))


def _signal(pid: int, number: int) -> None:
    """Signal a logger, if it has not ended; a kill is for all that it has started, too."""
    with suppress(OSError):  # nor does a want of descriptors hold up who clears up
        send_signal(pid, number, to_group=number == signal.SIGKILL)


def _is_dying(pid: int) -> bool:
    """Whether a child has begun to end: it gives up its memory before its descriptors."""
    size, _, _ = read_or_empty(f"/proc/{pid}/statm").partition(" ")
    return size in ("", "0")


def _is_in_use(reader: int) -> bool:
    """Whether a pipe has bytes in it, or somebody who may write more."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    events = dict(poll.poll(0)).get(reader, 0)
    return bool(events & select.POLLIN) or not events & select.POLLHUP


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are above those that the logger is given."""
    ends = os.pipe2(os.O_CLOEXEC)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in ends]
    for fd in ends:
        os.close(fd)
    return high[0], high[1]
