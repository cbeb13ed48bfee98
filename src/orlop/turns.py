"""Who waits for whom: a thing is done to once at a time, and nobody beside one for all."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Turns:
    """Turns of containers, snapshots and so on, by whatever names them. Thread-safe.

    Who holds one must not take another of these.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: list[Hashable] = []
        self._want_all = 0

    @contextmanager
    def take(self, thing: Hashable) -> Iterator[None]:
        """Be the only one that does anything to a thing; None is all of them."""
        with self._changed:
            if thing is None:
                self._wait_for_all()
            else:
                self._changed.wait_for(lambda: not self._is_taken(thing))
            self._taken.append(thing)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(thing)
                self._changed.notify_all()

    def _wait_for_all(self) -> None:
        """Whoever comes later waits as well: else there might always be somebody."""
        self._want_all += 1
        try:
            self._changed.wait_for(lambda: not self._taken)
        finally:
            self._want_all -= 1

    def _is_taken(self, thing: Hashable) -> bool:
        return self._want_all > 0 or thing in self._taken or None in self._taken
