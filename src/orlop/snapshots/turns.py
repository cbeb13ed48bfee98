"""One after the other, for each snapshot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Locks by namespace and key, which exist while somebody has them."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, snapshot: tuple[str, str]) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: snapshot not in self._taken)
            self._taken.add(snapshot)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(snapshot)
                self._changed.notify_all()
