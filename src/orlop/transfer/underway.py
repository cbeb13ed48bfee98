"""The pulls that are going on, as they were told last: for who comes to look."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from orlop.transfer.progress import Progress, Report


class Pulling(NamedTuple):
    """A pull. `began` is Unix time in seconds, `state` what it is at, `parts` its objects."""

    namespace: str
    name: str
    began: float
    state: str
    parts: list[Progress]


class _Pull:
    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.began = time.time()
        self.state = ""
        self.parts: dict[str, Progress] = {}


class Underway:
    """Follows pulls while they are pulled; nothing stays of one that has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pulls: dict[int, _Pull] = {}

    @contextmanager
    def following(self, namespace: str, name: str, report: Report) -> Iterator[Report]:
        """What a pull is to report to, so that it is seen here as well, until the context ends."""
        pull, number = _Pull(namespace, name), next(self._numbers)

        def told(progress: Progress) -> None:
            with self._lock:
                if not progress.name:
                    pull.state = progress.event
                elif progress.digest:
                    pull.parts[progress.name] = progress
            report(progress)

        with self._lock:
            self._pulls[number] = pull
        try:
            yield told
        finally:
            with self._lock:
                del self._pulls[number]

    def all(self) -> list[Pulling]:
        """In the order in which they began."""
        with self._lock:
            return [
                Pulling(each.namespace, each.name, each.began, each.state, [*each.parts.values()])
                for each in self._pulls.values()
            ]
