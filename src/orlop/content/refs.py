"""Who has which write in hand: each has one writer, and none begins while it is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from orlop.content.model import Locked
from orlop.errors import Aborted
from orlop.metadata.sweeping import Key
from orlop.turns import Turns


class Refs:
    """Refs, with their namespaces. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[Key] = set()
        # Apart from those: who writes may let go of a ref whose data is just being removed.
        self._ending: set[Key] = set()
        self._turns = Turns()

    def take(self, key: Key) -> None:
        """Raises Locked while somebody has it, or gives it up."""
        with self._lock:
            if key in self._held or key in self._ending:
                raise Locked(f'ref "{key[1]}" locked: another write of it is in progress')
            self._held.add(key)

    def release(self, key: Key) -> None:
        with self._lock:
            self._held.discard(key)

    def held(self) -> list[Key]:
        """Those that somebody has, in order."""
        with self._lock:
            return sorted(self._held)

    def beginning(self, key: Key) -> AbstractContextManager[None]:
        """Nobody gives it up until there is all of it; for who has it."""
        return self._turns.take(key)

    @contextmanager
    def ending(self, key: Key) -> Iterator[None]:
        """Nobody takes it up until all of it has gone; who has it may go on, in vain."""
        with self._turns.take(key):
            with self._lock:
                self._ending.add(key)
            try:
                yield
            finally:
                with self._lock:
                    self._ending.discard(key)

    @contextmanager
    def idle(self, keys: Iterable[Key]) -> Iterator[set[Key]]:
        """Those of the keys that nobody has, and nobody gets meanwhile."""
        with self._lock:
            idle = {key for key in keys if key not in self._held}
            self._held |= idle
        try:
            yield idle
        finally:
            with self._lock:
                self._held -= idle


def aborted(ref: str) -> Aborted:
    """What a writer is told whose ref was given up."""
    return Aborted(f'write of ref "{ref}" was aborted')


@contextmanager
def unless_aborted(ref: str) -> Iterator[None]:
    """Where a file of the write may be missing, it has gone with the ref."""
    try:
        yield
    except FileNotFoundError:
        raise aborted(ref) from None
