"""What a client expects of its containers, and who may have been harmed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from tests.soak.vitals import Vitals

KILLED = 137
LOST = 255
BROKEN_PIPE = 141


@dataclass
class Expected:
    """A container that a client has made. `code` is what its command exits with, None for never.

    `log` is where its logger writes, None without one.
    """

    code: int | None
    log: Path | None = None
    has_task: bool = True
    killed: bool = False
    paused: bool = False


class Ledger:
    """Shared by all threads: what was harmed on purpose, and what went wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._harmed: set[str] = set()
        self.history: list[str] = []
        self.faults: list[str] = []
        self.steps = 0
        self.kills: dict[str, int] = {}
        self.vitals: list[Vitals] = []

    def harm(self, name: str, by: str) -> None:
        """A container whose shim, runtime or init is about to be killed."""
        with self._lock:
            self._harmed.add(name)
            self.history.append(f"{name}: {by}")

    def heal(self, name: str) -> None:
        """The container has a new task."""
        with self._lock:
            self._harmed.discard(name)

    def is_harmed(self, name: str) -> bool:
        with self._lock:
            return name in self._harmed

    def count(self, what: str) -> None:
        with self._lock:
            self.kills[what] = self.kills.get(what, 0) + 1

    def step(self) -> None:
        with self._lock:
            self.steps += 1

    def fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)
