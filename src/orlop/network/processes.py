"""Processes whose network namespaces are entered, and which may end at any moment."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path
from types import TracebackType

from orlop.errors import FailedPrecondition, Unavailable
from orlop.network.namespaces import of_process

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
