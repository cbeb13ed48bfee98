"""What is to be looked at when: soon after an exit, later after each exit that comes too early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Key = tuple[str, str]
"""A namespace and a container."""

FIRST_DELAY = 0.1
LAST_DELAY = 60.0
LOOK_AGAIN = 1.0
STEADY = 10.0
"""Seconds of running after which an exit is the first one again."""


class Agenda:
    """Containers with the moments at which to look at them; one thread takes, any thread adds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[Key, float] = {}
        self._delays: dict[Key, float] = {}
        self._started: dict[Key, float] = {}
        self._closed = False

    def ended(self, key: Key, *, afresh: bool = False) -> None:
        """A container's task ended: look at it after its delay, the first one if `afresh`."""
        with self._changed:
            if key in self._due:
                return
            if afresh:
                self._delays.pop(key, None)
            now = self._clock()
            started = self._started.pop(key, None)
            if started is not None and now - started >= STEADY:
                self._delays.pop(key, None)
            delay = self._delays.get(key, FIRST_DELAY)
            self._delays[key] = min(2 * delay, LAST_DELAY)
            self._due[key] = now + delay
            self._changed.notify_all()

    def failed(self, key: Key) -> None:
        """A container's task could not be started, however long that took."""
        with self._changed:
            self._started.pop(key, None)
            self.ended(key)

    def later(self, key: Key) -> None:
        """Look at a container again soon, for nothing could be told of it."""
        with self._changed:
            self._due.setdefault(key, self._clock() + LOOK_AGAIN)
            self._changed.notify_all()

    def starts(self, key: Key) -> None:
        """A container's task is being started."""
        with self._changed:
            self._started[key] = self._clock()

    def runs(self, key: Key) -> None:
        """A container's task runs, by whomever and whenever it was started."""
        with self._changed:
            self._started.setdefault(key, self._clock())

    def forget(self, key: Key) -> None:
        """A container that is no more, or is left alone from now on."""
        with self._changed:
            for each in (self._due, self._delays, self._started):
                each.pop(key, None)

    def waits(self, key: Key) -> bool:
        """Whether a container is going to be looked at."""
        with self._changed:
            return key in self._due

    def take(self, until: float) -> list[Key]:
        """Wait for what is due, at most until a moment on the clock; empty then and once closed."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                found = [key for key, moment in self._due.items() if moment <= now]
                for key in found:
                    del self._due[key]
                if found or now >= until:
                    return found
                self._changed.wait(min([until, *self._due.values()]) - now)
            return []

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed
