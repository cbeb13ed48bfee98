"""What a hand leaves to its keeper when it goes: state as plain values, and descriptors.

`freeze(luggage)` of each object gives its state as what `marshal` can carry, with descriptors put
into the luggage; its `thaw` makes the object again out of both. An object in the middle of
something raises `Busy`, and the hand stays.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

NONE = -1
"""Stands for a descriptor that is not open."""


class Busy(Exception):
    """Something is under way that only this process can bring to its end."""


class Luggage:
    """Descriptors on their way: packed by one hand, claimed by the next."""

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self.fds = list(fds)
        self._claimed: set[int] = set()

    def put(self, fd: int) -> int:
        """Pack a descriptor; the number under which it is claimed again."""
        if fd == NONE:
            return NONE
        if fd in self.fds:
            return self.fds.index(fd)
        self.fds.append(fd)
        return len(self.fds) - 1

    def claim(self, number: int) -> int:
        """The descriptor of a number; it is the caller's now."""
        if number == NONE:
            return NONE
        self._claimed.add(number)
        return self.fds[number]

    def drop_rest(self) -> None:
        """Close what nobody has claimed: it was only to be watched."""
        for number, fd in enumerate(self.fds):
            if number not in self._claimed:
                os.close(fd)
