"""Threads that serve calls: as many as there are calls, and for a while after.

`concurrent.futures` would do, but what it does for a result, which nobody wants here, takes as long
as a short call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_log = logging.getLogger(__name__)

_LINGER = 30.0

Job = tuple[Callable[..., object], tuple[object, ...]]


class ThreadPool:
    """Does what it is given on threads of its own, at most `limit`; the owner calls `close`."""

    def __init__(self, limit: int, name: str, *, linger: float = _LINGER) -> None:
        """A thread that has had nothing to do for `linger` seconds ends."""
        self._limit = limit
        self._name = name
        self._linger = linger
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._free = 0  # threads that wait for jobs to come
        self._late = 0  # jobs that wait for threads, for there may not be more
        self._closed = False

    def submit(self, action: Callable[..., object], *args: object) -> None:
        """Have a thread do it soon; nothing is done after `close`."""
        with self._lock:
            if self._closed:
                return
            self._jobs.put((action, args))
            if self._free:
                self._free -= 1
            elif len(self._threads) < self._limit:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the machine has no more: it waits for one of ours
                    self._late += 1
                else:
                    self._threads.add(thread)
            else:
                self._late += 1

    @property
    def size(self) -> int:
        return len(self._threads)

    @property
    def waiting(self) -> int:
        """Jobs for which there may be no more threads."""
        return self._late

    def close(self) -> None:
        """Take no more, and return when all that was taken is done."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for _ in threads:
                self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._linger)
            except Empty:
                if self._leave():
                    return
                continue
            if job is None:
                return
            action, args = job
            try:
                action(*args)
            except Exception:  # noqa: BLE001 - the next job is another's
                _log.exception("a call's thread failed")
            del job, action, args
            with self._lock:
                if self._late:
                    self._late -= 1
                else:
                    self._free += 1

    def _leave(self) -> bool:
        """Whether there is a thread too many; else a job, or the end, is about to come."""
        with self._lock:
            if not self._free or self._closed:
                return False
            self._free -= 1
            self._threads.discard(threading.current_thread())
            return True
