"""Processes whose network namespaces are entered, and which may end at any moment."""

from __future__ import annotations

import errno
import os
import select
import threading
from pathlib import Path
from types import TracebackType

from orlop.errors import FailedPrecondition, Unavailable
from orlop.network.namespaces import of_process
from orlop.network.ports import Key

BEING_MADE = 0
NOBODY = -1
_NONE = (errno.ESRCH, errno.EINVAL)  # there is no such process, or that is no number of one


class Process:
    """The process that has the number `pid` now: a later one of that number is never taken for it.

    Raises FailedPrecondition if there is none, Unavailable if that cannot be told. To be closed, or
    used in a `with`.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            failure = FailedPrecondition if error.errno in _NONE else Unavailable
            raise failure(f"process {pid} of the container: {reason}") from None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    @property
    def netns(self) -> str:
        """The path of its network namespace; it is its own if it has not ended afterwards."""
        return of_process(self.pid)

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def check(self) -> None:
        """Raise FailedPrecondition if it has ended."""
        if self.has_ended():
            raise FailedPrecondition(f"process {self.pid} of the container has ended")

    def is_in(self, pin: Path) -> bool:
        """Whether it is in the network namespace that is pinned at a path; raises OSError."""
        theirs, ours = pin.stat(), Path(self.netns).stat()
        return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


class Pids:
    """By which process each container that is in networks is known to be there. Thread-safe.

    `BEING_MADE` stands for one that is to come, `NOBODY` for a namespace without one of ours.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, int] = {}

    def put(self, key: Key, pid: int) -> None:
        with self._lock:
            self._known[key] = pid

    def meet(self, key: Key, pid: int) -> bool:
        """Note one, unless it is known already; whether it was not."""
        with self._lock:
            new = key not in self._known
            self._known.setdefault(key, pid)
        return new

    def get(self, key: Key, unknown: int) -> int:
        with self._lock:
            return self._known.get(key, unknown)

    def is_being_made(self, key: Key) -> bool:
        return self.get(key, NOBODY) == BEING_MADE

    def drop(self, key: Key) -> None:
        with self._lock:
            self._known.pop(key, None)
