"""Deletion of snapshots' folders, by one thread for a snapshotter; nobody waits but who asks."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping
from pathlib import Path

from orlop.snapshots.driver import Driver

_POLL = 1.0

_log = logging.getLogger(__name__)


class Deletion:
    """Deletes what a driver puts away; what cannot be deleted is `stuck`, and can be tried again.

    The owner calls `close`.
    """

    def __init__(self, name: str, driver: Driver) -> None:
        self.name = name
        self._driver = driver
        self._waiting: queue.Queue[Path | threading.Event | None] = queue.Queue()
        self._lock = threading.Lock()
        self._stuck: dict[Path, str] = {}
        self._thread = threading.Thread(target=self._run, name=f"snapshots-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was begun."""
        self._waiting.put(None)
        self._thread.join()

    def add(self, path: Path) -> None:
        self._waiting.put(path)

    def put_away(self, number: int) -> None:
        """Take a snapshot that has no row out of sight, and delete it; what must stay is stuck."""
        folder = self._driver.folder(number)
        try:
            path = self._driver.trash(number)
        except OSError as error:
            self._note(folder, error)
            return
        with self._lock:
            self._stuck.pop(folder, None)
        if path is not None:
            self.add(path)

    def undeleted(self) -> int:
        """How many wait to be deleted, or cannot be."""
        with self._lock:
            return self._waiting.unfinished_tasks + len(self._stuck)

    def stuck(self) -> Mapping[Path, str]:
        """What could not be deleted, and why."""
        with self._lock:
            return dict(self._stuck)

    def again(self) -> Mapping[Path, str]:
        """Try what is left again, after all that waits; what stays then, and why."""
        for path in {*self.stuck(), *self._driver.trashed()}:
            if path.name.isdecimal():
                self.put_away(int(path.name))
            else:
                self.add(path)
        done = threading.Event()
        self._waiting.put(done)
        while not done.wait(_POLL) and self._thread.is_alive():
            pass
        return self.stuck()

    def _run(self) -> None:
        while (next_one := self._waiting.get()) is not None:
            if isinstance(next_one, Path):
                self._delete(next_one)
            self._waiting.task_done()
            if isinstance(next_one, threading.Event):
                next_one.set()

    def _delete(self, path: Path) -> None:
        try:
            self._driver.destroy(path)
        except Exception as error:  # noqa: BLE001 - there will be others to delete
            self._note(path, error)
            return
        with self._lock:
            self._stuck.pop(path, None)

    def _note(self, path: Path, error: Exception) -> None:
        why = str(error)
        with self._lock:
            told = self._stuck.get(path) == why
            self._stuck[path] = why
        if not told:
            _log.warning('snapshotter=%s cannot delete "%s": %s', self.name, path, why)
