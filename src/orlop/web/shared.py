"""An answer that is made once for all who ask for it at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    done: threading.Event = field(default_factory=threading.Event)
    text: bytes | None = None


class Shared:
    """Makes something for one at a time; all who come meanwhile get the next, made once.

    For `fresh` seconds afterwards it is given again, as it is: so often at most it is made.
    """

    def __init__(self, make: Callable[[], bytes], fresh: float = 0.0) -> None:
        self._make = make
        self._fresh = fresh
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next: _Turn | None = None
        self._last: tuple[float, bytes] | None = None

    def get(self) -> bytes:
        """Raises what making it does, or ConnectionAbortedError when that failed for another."""
        with self._lock:
            if (fresh := self._fresh_one()) is not None:
                return fresh
            mine = self._next
            first = mine is None
            if mine is None:
                mine = self._next = _Turn()
        if not first:
            mine.done.wait()
            if mine.text is None:
                raise ConnectionAbortedError("the answer could not be made")
            return mine.text
        try:
            with self._turn:
                with self._lock:
                    self._next = None  # who comes now wants what is still to be seen
                    mine.text = self._fresh_one()  # of the turn that was waited for
                if mine.text is None:
                    mine.text = self._make()
                    self._last = (time.monotonic(), mine.text) if self._fresh else None
        finally:
            mine.done.set()
        return mine.text

    def _fresh_one(self) -> bytes | None:
        if self._last is None or time.monotonic() - self._last[0] >= self._fresh:
            return None
        return self._last[1]
