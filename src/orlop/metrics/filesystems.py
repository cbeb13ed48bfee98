"""What containers have written to their filesystems: measured at leisure, told at once.

To know it, every file must be looked at, which no scrape can wait for. So a scrape is told what is
known, and has a worker measure what is too old: the next scrape knows it. Of what a snapshotter of
others has, that one is asked. Nobody scrapes, nobody measures.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from orlop.errors import NotFound, OrlopError, Unavailable
from orlop.fork.memory import memory_file, write_all
from orlop.fork.worker import Spawner, Worker
from orlop.snapshots import SnapshotStore
from orlop.snapshots.snapshotter import Snapshotter

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
    """Bytes on disk and inodes; `at` is when, in seconds since 1970.

    `limit` is how many bytes there may be; 0 is any number.
    """

    size: int
    inodes: int
    at: float
    limit: int = 0


@dataclass(slots=True)
class _State:
    """When to measure, by the monotonic clock; how long it took last, what was found."""

    due: float = 0.0
    took: float = 0.0
    limit: int = 0
    found: Measured | None = None


class Filesystems:
    """Knows the sizes of writable layers, none of them older than `age` seconds and a scrape.

    One that takes long is measured less often. 0 has none measured. The owner calls `close`.
    """

    def __init__(self, forks: Spawner, snapshotters: Mapping[str, Snapshotter], age: float) -> None:
        self._forks = forks
        self._snapshotters = snapshotters
        self._age = age
        self._lock = threading.Lock()
        self._states: dict[Layer, _State] = {}
        self._failed = 0
        self._measuring: threading.Thread | None = None
        self._asking: threading.Thread | None = None
        self._worker: Worker | None = None
        self._closed = False

    def close(self) -> None:
        """End a measurement that is under way, and begin none any more.

        Who is asked may take as long as he likes, or until he is hung up on: nobody waits for that.
        """
        with self._lock:
            self._closed = True
            thread, worker = self._measuring, self._worker
        if worker is not None:
            worker.cancel()
        if thread is not None:
            thread.join()

    def known(self, layers: Iterable[Layer]) -> Mapping[Layer, Measured]:
        """What is known of these; from now on they are measured, and no others."""
        if not self._age:
            return {}
        wanted = {each for each in layers if each.key}  # without, the root is a client's own
        with self._lock:
            self._states = {key: self._states.get(key) or _State() for key in wanted}
            return {key: each.found for key, each in self._states.items() if each.found}

    def refresh(self) -> None:
        """Have what is too old measured, unless some is being measured; does not wait."""
        now = time.monotonic()
        with self._lock:
            if self._closed:
                return
            due = [key for key, each in self._states.items() if each.due <= now]
            # The others need not wait for large ones.
            due.sort(key=lambda key: self._states[key].took)
            ours = [key for key in due if self._own(key) is not None]
            others = [key for key in due if self._own(key) is None]
            self._measuring = self._begin(self._measuring, self._measure, ours, now)
            self._asking = self._begin(self._asking, self._ask, others, now)

    def _begin(
        self,
        last: threading.Thread | None,
        work: Callable[[list[Layer]], None],
        due: list[Layer],
        now: float,
    ) -> threading.Thread | None:
        if not due or (last is not None and last.is_alive()):
            return last
        for key in due:
            self._states[key].due = now + self._age
        thread = threading.Thread(target=work, args=(due,), name="filesystems", daemon=True)
        thread.start()
        return thread

    def _own(self, layer: Layer) -> SnapshotStore | None:
        """The snapshotter of a layer, if it is one of ours."""
        found = self._snapshotters.get(layer.snapshotter)
        return found if isinstance(found, SnapshotStore) else None

    def failed(self) -> int:
        """How many could not be measured since this was asked last."""
        with self._lock:
            count, self._failed = self._failed, 0
        return count

    def _measure(self, due: list[Layer]) -> None:
        try:
            folders = self._folders(due)
            if not folders:
                return
            with memory_file("orlop-metrics") as source:
                write_all(source, json.dumps(list(folders.values())).encode())
                self._work(list(folders), source)
        except (OrlopError, OSError, sqlite3.Error) as error:
            self._miss(len(due), error)

    def _ask(self, due: list[Layer]) -> None:
        """Who has the layers knows how large they are."""
        failures: defaultdict[str, list[Exception]] = defaultdict(list)
        for layer in due:
            if self._closed:
                return
            began = time.monotonic()
            try:
                store = self._snapshotters.get(layer.snapshotter)
                if store is None:
                    raise Unavailable(f'there is no snapshotter "{layer.snapshotter}"')
                usage = store.usage(layer.namespace, layer.key)
            except NotFound:
                continue  # the container has gone
            except (OrlopError, OSError, sqlite3.Error) as error:
                failures[layer.snapshotter].append(error)
            else:
                took = time.monotonic() - began
                self._learn([layer], [(0, usage.size, usage.inodes, took)])
        for errors in failures.values():
            self._miss(len(errors), errors[0])

    def _miss(self, count: int, error: Exception) -> None:
        if self._closed:
            return
        _log.warning("filesystems of %d containers cannot be measured: %s", count, error)
        with self._lock:
            self._failed += count

    def _folders(self, layers: Iterable[Layer]) -> dict[Layer, str]:
        """Where they are, of those that are there still, whose limits are noted."""
        found = {}
        for layer in layers:
            store = self._own(layer)
            assert store is not None
            with suppress(NotFound):
                found[layer] = os.fspath(store.folder(layer.namespace, layer.key))
                limit = store.size_limit(layer.namespace, layer.key)
                with self._lock:
                    if layer in self._states:
                        self._states[layer].limit = limit
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
                state.found = Measured(size, inodes, at, state.limit) if size >= 0 else None
                self._failed += size < 0
