"""Which containers are to be checked when."""

from __future__ import annotations

import heapq
import threading
import time

from orlop.health.files import Key


class Timetable:
    """One moment a container; one thread takes, any thread puts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._moments: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self.closed = False

    def put(self, key: Key, seconds: float) -> None:
        """Take the container up in so many seconds, and not when it was put for before."""
        moment = time.monotonic() + seconds
        with self._changed:
            self._moments[key] = moment
            heapq.heappush(self._heap, (moment, key))
            self._changed.notify()

    def drop(self, key: Key) -> None:
        with self._changed:
            self._moments.pop(key, None)

    def take(self) -> Key | None:
        """Wait for the next that is due; None once closed."""
        with self._changed:
            while not self.closed:
                now = time.monotonic()
                while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
                    heapq.heappop(self._heap)
                if self._heap and self._heap[0][0] <= now:
                    _, key = heapq.heappop(self._heap)
                    del self._moments[key]
                    return key
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
            return None

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()
