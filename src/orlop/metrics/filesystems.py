"""What containers have written to their filesystems: measured at leisure, told at once.

To know it, every file must be looked at, which no scrape can wait for. So a scrape is told what is
known, and has a worker measure what is too old: the next scrape knows it. Nobody scrapes, nobody
measures.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from orlop.errors import NotFound, OrlopError
from orlop.fork.memory import memory_file, write_all
from orlop.fork.worker import Spawner, Worker
from orlop.snapshots import SnapshotStore

_log = logging.getLogger(__name__)

_JOB = "orlop.metrics.measuring:measure"
_SHARE = 20
"""A folder is left alone for this many times as long as it took."""


class Layer(NamedTuple):
    """The writable layer of a container."""

    namespace: str
    snapshotter: str
    key: str


class Measured(NamedTuple):
    """Bytes on disk and inodes; `at` is when, in seconds since 1970."""

    size: int
    inodes: int
    at: float


@dataclass(slots=True)
class _State:
    """When to measure, by the monotonic clock; how long it took last, what was found."""

    due: float = 0.0
    took: float = 0.0
    found: Measured | None = None


class Filesystems:
    """Knows the sizes of writable layers, none of them older than `age` seconds and a scrape.

    One that takes long is measured less often. 0 has none measured. The owner calls `close`.
    """

    def __init__(
        self, forks: Spawner, snapshotters: Mapping[str, SnapshotStore], age: float
    ) -> None:
        self._forks = forks
        self._snapshotters = snapshotters
        self._age = age
        self._lock = threading.Lock()
        self._states: dict[Layer, _State] = {}
        self._failed = 0
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None
        self._closed = False

    def close(self) -> None:
        """End a measurement that is under way, and begin none any more."""
        with self._lock:
            self._closed = True
            thread, worker = self._thread, self._worker
        if worker is not None:
            worker.cancel()
        if thread is not None:
            thread.join()

    def known(self, layers: Iterable[Layer]) -> Mapping[Layer, Measured]:
        """What is known of these; from now on they are measured, and no others."""
        if not self._age:
            return {}
        wanted = {each for each in layers if each.snapshotter in self._snapshotters}
        with self._lock:
            self._states = {key: self._states.get(key) or _State() for key in wanted}
            return {key: each.found for key, each in self._states.items() if each.found}

    def refresh(self) -> None:
        """Have what is too old measured, unless some is being measured; does not wait."""
        now = time.monotonic()
        with self._lock:
            due = [key for key, each in self._states.items() if each.due <= now]
            busy = self._thread is not None and self._thread.is_alive()
            if not due or busy or self._closed:
                return
            # The others need not wait for large ones.
            due.sort(key=lambda key: self._states[key].took)
            for key in due:
                self._states[key].due = now + self._age
            self._thread = threading.Thread(
                target=self._measure, args=(due,), name="filesystems", daemon=True
            )
            self._thread.start()

    def failed(self) -> int:
        """How many could not be measured since this was asked last."""
        with self._lock:
            count, self._failed = self._failed, 0
        return count

    def _measure(self, due: list[Layer]) -> None:
        try:
            folders = self._folders(due)
            with memory_file("orlop-metrics") as source:
                write_all(source, json.dumps(list(folders.values())).encode())
                self._work(list(folders), source)
        except (OrlopError, OSError, sqlite3.Error) as error:
            if not self._closed:
                _log.warning("filesystems of containers cannot be measured: %s", error)

    def _folders(self, layers: Iterable[Layer]) -> dict[Layer, str]:
        """Where they are, of those that are there still."""
        found = {}
        for layer in layers:
            store = self._snapshotters[layer.snapshotter]
            with suppress(NotFound):
                found[layer] = os.fspath(store.folder(layer.namespace, layer.key))
        return found

    def _work(self, order: list[Layer], source: int) -> None:
        with Worker(self._forks, _JOB, {}, [source], name="orlop-du") as worker:
            with self._lock:
                self._worker = worker
                if self._closed:
                    return
            try:
                worker.result(lambda results: self._learn(order, results))
            finally:
                with self._lock:
                    self._worker = None

    def _learn(self, order: list[Layer], results: list[tuple[int, int, int, float]]) -> None:
        now, at = time.monotonic(), time.time()
        with self._lock:
            for number, size, inodes, took in results:
                state = self._states.get(order[number])
                if state is None:
                    continue  # the container has gone
                state.took, state.due = took, now + max(self._age, _SHARE * took)
                state.found = Measured(size, inodes, at) if size >= 0 else None
                self._failed += size < 0
