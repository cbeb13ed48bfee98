"""Tells when somebody opens a file: the fifo of a process that has ended before its client came."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from orlop.shim.rest import NONE, Luggage
from orlop.sys.inotify import IN_OPEN, add_watch, open_inotify, remove_watch

if TYPE_CHECKING:
    from orlop.shim.loop import Loop, Task

_EVENTS = 64 * 1024


class Openings:
    """One inotify instance for all that a shim waits for: a user may have 128 of them.

    It stays open while the shim works, for the kernel takes up to 40 ms to close one.
    """

    def __init__(self) -> None:
        self._fd = NONE
        self._waiting = 0
        self._reading: Task[bytes] | None = None

    def freeze(self, luggage: Luggage) -> int:
        """What `thaw` takes up again; nothing if nobody waits."""
        return luggage.put(self._fd if self._waiting else NONE)

    def thaw(self, luggage: Luggage, number: int) -> None:
        """Before anybody waits again."""
        self._fd = luggage.claim(number)

    def close(self) -> None:
        if self._fd != NONE:
            os.close(self._fd)
            self._fd = NONE

    async def until(self, loop: Loop, done: Callable[[], bool], fd: int) -> None:
        """Wait until that holds, which changes only when somebody opens the file of `fd`.

        Raises OSError if that cannot be told.
        """
        if self._fd == NONE:
            self._fd = open_inotify()
        self._waiting += 1
        watch = NONE
        try:
            while True:
                # Before each look: who has waited for the same file has ended the watch.
                watch = add_watch(self._fd, f"/proc/self/fd/{fd}", IN_OPEN)
                if done():
                    return
                # Read for all at once: who is yet to look must not take what another waits for.
                if self._reading is None or self._reading.done:
                    self._reading = loop.spawn(loop.read(self._fd, _EVENTS))
                await self._reading
        finally:
            self._waiting -= 1
            if not self._waiting and self._reading is not None:
                self._reading.cancel()
            with suppress(OSError):
                remove_watch(self._fd, watch)
