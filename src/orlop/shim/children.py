"""Child processes: exits, told once to whoever asked, also before the pid was known.

A hand's own children are the runtimes and loggers that it starts. The processes of containers are
orphans, which the keeper adopts and reaps; it tells of them.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from orlop.shim.files import read_text
from orlop.shim.keeper import BORN, EXIT, STOP, Ended, ask_for_helper, confirm
from orlop.shim.loop import Lock, Loop, Promise
from orlop.sys.bare import Socket

# How pidfd_open(2) says so; a number that is left to a group or session of others is "invalid".
_NOBODY = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
CONFIRMED = 256
"""Exits after which the keeper is told that they are known."""


class Exit(NamedTuple):
    """How a process ended: `status` is its exit code or 128 + signal, `at` Unix time in ns."""

    status: int
    at: int


class Children:
    """The exits of this process's children, and of the keeper's as told over `control`.

    `on_stop` is called when the keeper has been told to stop.
    """

    def __init__(self, loop: Loop, control: Socket, on_stop: Callable[[], None]) -> None:
        self._loop = loop
        self._control = control
        self._on_stop = on_stop
        self._watched: dict[int, Promise[Exit]] = {}
        self._expecting: list[Expecting] = []
        self.told = 0
        """How many exits the keeper has told of."""
        self._asking = Lock(loop)
        self._born: Promise[int] = Promise(loop)
        control.setblocking(False)
        loop.on_signal(signal.SIGCHLD, self._reap)
        loop.spawn(self._listen())

    @contextmanager
    def expecting(self) -> Iterator[Expecting]:
        """Keep the exits of unknown processes for the `exit_of` of what this gives.

        runc tells the pid of what it started only afterwards, and that may have ended by then.
        Outside such blocks the exits of orphans are of no interest; and those of before a block are
        of none in it, for numbers are used again.
        """
        block = Expecting(self)
        self._expecting.append(block)
        try:
            yield block
        finally:
            self._expecting.remove(block)

    def exit_of(self, pid: int) -> Promise[Exit]:
        """The promise of a child's exit; ask once, right after the spawn."""
        promise = self._watched[pid] = Promise(self._loop)
        return promise

    def early_exit_of(self, pid: int, exit: Exit) -> Promise[Exit]:
        """The promise of an exit that a block has kept: no other one has any use for it."""
        for each in self._expecting:
            each.early.pop(pid, None)
        promise: Promise[Exit] = Promise(self._loop)
        promise.resolve(exit)
        return promise

    def take_in(self, ended: Iterable[Ended]) -> None:
        """Exits that the keeper has reaped."""
        for each in ended:
            self.told += 1
            if self.told % CONFIRMED == 0:
                confirm(self._control, self.told)
            if each.pid == STOP:
                self._on_stop()
            else:
                self._ended(each.pid, Exit(_status(each.status), each.at))

    async def fork(self, request: bytes, fds: Sequence[int]) -> int:
        """Have the keeper fork a helper, which is its child and outlives this process; the pid.

        Raises OSError when it cannot.
        """
        async with self._asking:
            self._born = Promise(self._loop)
            while True:
                try:
                    ask_for_helper(self._control, request, fds)
                    break
                except BlockingIOError:
                    await self._loop.writable(self._control.fileno())
            pid = await self._born
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    @property
    def awaited(self) -> list[int]:
        """The processes whose exits somebody waits for."""
        return list(self._watched)

    async def _listen(self) -> None:
        fd = self._control.fileno()
        while notice := await self._loop.read(fd, EXIT.size):
            if len(notice) == BORN.size:
                self._born.resolve(*BORN.unpack(notice))
            else:
                self.take_in([Ended(*EXIT.unpack(notice))])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, Exit(_status(status), time.time_ns()))

    def _ended(self, pid: int, exit: Exit) -> None:
        promise = self._watched.pop(pid, None)
        if promise is not None:
            promise.resolve(exit)
        else:
            for each in self._expecting:
                each.early[pid] = exit


class Expecting:
    """The time in which a runtime makes a process; see `Children.expecting`."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self.early: dict[int, Exit] = {}
        """The exits of unknown processes since it began."""

    def exit_of(self, pid: int) -> Promise[Exit]:
        """The promise of the exit of what was made; ask once."""
        early = self.early.get(pid)
        if early is not None:
            return self._children.early_exit_of(pid, early)
        return self._children.exit_of(pid)


def send_signal(pid: int, number: int, *, to_group: bool = False) -> None:
    """Signal a child of this process or of the keeper; to its group, if it has made one.

    Raises ProcessLookupError if it has ended, also where its exit has not been told of yet: once it
    is reaped, its number may be that of any other process.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NOBODY:
            raise _no_such_process() from None
        raise
    try:
        if _parent(pid) not in (os.getpid(), os.getppid()):
            raise _no_such_process()
        if to_group:
            with suppress(ProcessLookupError):  # it is just being forked, and in our group still
                os.killpg(pid, number)
        signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _no_such_process() -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def _parent(pid: int) -> int:
    """0 for a process that has ended; raises OSError where that cannot be told."""
    try:
        stat = read_text(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
