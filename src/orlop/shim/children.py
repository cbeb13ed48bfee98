"""Child processes: exits, told once to whoever asked, also before the pid was known."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from orlop.shim.loop import Loop, Promise
from orlop.sys.process import set_child_subreaper


class Exit(NamedTuple):
    """How a process ended: `status` is its exit code or 128 + signal, `at` Unix time in ns."""

    status: int
    at: int


class Children:
    """Reaps every child, also orphans: this process becomes their subreaper."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._watched: dict[int, Promise[Exit]] = {}
        self._early: dict[int, Exit] = {}
        self._expecting = 0
        set_child_subreaper()
        loop.on_signal(signal.SIGCHLD, self._reap)

    def expecting(self) -> Children:
        """A context that keeps the exits of unknown processes for `exit_of`.

        runc tells the pid of what it started only afterwards, and that may have ended by then.
        Outside such blocks the exits of orphans are of no interest.
        """
        return self

    def __enter__(self) -> None:
        self._expecting += 1

    def __exit__(self, *_: object) -> None:
        self._expecting -= 1
        if not self._expecting:
            self._early.clear()

    def exit_of(self, pid: int) -> Promise[Exit]:
        """The promise of a child's exit; ask once, right after the spawn or while `expecting`."""
        promise: Promise[Exit] = Promise(self._loop)
        if pid in self._early:
            promise.resolve(self._early.pop(pid))
        else:
            self._watched[pid] = promise
        return promise

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
        elif self._expecting:
            self._early[pid] = exit


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
