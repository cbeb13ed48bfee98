"""Moves of processes into cgroups, made quick before they are wanted.

The kernel's lock for such moves is made for those that only read. The first move after a while
waits for an RCU grace period (some 10 ms), and those that follow within another do not. So when
a runtime is about to be started, a move that changes nothing goes before, and its wait passes
while the runtime is still busy with other things.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_BETWEEN = 0.004
_LONG_ENOUGH = 0.02  # seconds from the word to the runtime's own moves


class CgroupMoves:
    """Keeps moves quick for a moment whenever some are expected.

    A thread of its own does; `close` ends it. `find` tells the `cgroup.procs` of a cgroup that this
    process is in at that moment; where there is none that it may write to, nothing is done.
    """

    def __init__(self, find: Callable[[], Path | None]) -> None:
        self._find = find
        self._until = 0.0
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cgroup-moves", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        """A runtime is about to be started; never blocks."""
        self._until = time.monotonic() + _LONG_ENOUGH
        self._wanted.set()

    def close(self) -> None:
        self._closing = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        told = False
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing:
                return
            try:
                self._keep_quick()
            except OSError as error:
                if not told:
                    _log.info("moves between cgroups are not prepared: %s", error)
                told = True

    def _keep_quick(self) -> None:
        procs = self._find()
        while procs is not None and time.monotonic() < self._until:
            procs.write_bytes(b"0")  # this process, to where it is
            time.sleep(_BETWEEN)


def own_procs() -> Path | None:
    """`cgroup.procs` of a cgroup that this process is in, on any hierarchy (cgroups(7))."""
    for line in _OWN.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder = controllers.removeprefix("name=").split(",")[0]
        procs = _CGROUPS / folder / path.lstrip("/") / "cgroup.procs"
        if procs.exists():
            return procs
    return None
