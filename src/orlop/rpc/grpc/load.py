"""How much one client asks for before it takes the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

# With so much, other calls wait.
_MOST = 64
# Streams that may lag before more of them count.
_LAGGING_MAX = 256
# Calls that may wait so.
_QUEUE_MAX = 1 << 14

Call = TypeVar("Call")


class Load(Generic[Call]):
    """Calls that a thread is about to begin or whose answers are not taken, and who waits for them.

    Calls under way do not count, nor do some hundreds of streams that lag. Those that wait take no
    thread; `begin` gives a call to one, which says `take_off` when it has it.
    """

    def __init__(self, begin: Callable[[Call], None]) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        self._size = 0
        self._lagging = 0
        self._queue: dict[int, Call] = {}

    def add(self, id: int, call: Call) -> bool:
        """Have a call begun when its turn comes; False for one too many."""
        with self._lock:
            if len(self._queue) >= _QUEUE_MAX:
                return False
            self._queue[id] = call
            self._begin_some()
        return True

    def drop(self, id: int) -> None:
        """Nothing happens if the call has begun."""
        with self._lock:
            self._queue.pop(id, None)

    def lay_on(self) -> None:
        with self._lock:
            self._size += 1

    def take_off(self) -> None:
        with self._lock:
            self._size -= 1
            self._begin_some()

    def lag(self) -> None:
        """A stream waits for its client to make room, until `catch_up`."""
        with self._lock:
            self._lagging += 1

    def catch_up(self) -> None:
        with self._lock:
            self._lagging -= 1
            self._begin_some()

    def _begin_some(self) -> None:
        while self._queue and self._size + max(0, self._lagging - _LAGGING_MAX) < _MOST:
            self._size += 1
            self._begin(self._queue.pop(next(iter(self._queue))))
