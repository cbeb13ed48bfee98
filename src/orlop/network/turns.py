"""Who waits for whom: a container is done to once at a time, and nobody beside a GC."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Turns:
    """Turns of containers, by whatever names them. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: list[Hashable] = []

    @contextmanager
    def take(self, container: Hashable) -> Iterator[None]:
        """Be the only one that does anything to a container; None is all of them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_taken(container))
            self._taken.append(container)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(container)
                self._changed.notify_all()

    def _is_taken(self, container: Hashable) -> bool:
        if container is None:
            return bool(self._taken)
        return container in self._taken or None in self._taken
