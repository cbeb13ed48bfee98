"""How far a list of operations has come: a file in memory, which outlives the worker that tells."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from orlop.network.operations import AnyOperation, place

_FORM = struct.Struct("=III")


class Progress:
    """On both sides: what is begun and done, of the list that is being applied."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def create(cls) -> Progress:
        """The daemon's, to be closed; the worker has the other end of its `fd`."""
        return cls(os.memfd_create("orlop-network", os.MFD_CLOEXEC))

    @property
    def fd(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def clear(self) -> None:
        """A list is not begun, or undone."""
        self._write(0, 0)

    def begin(self, number: int) -> None:
        """The operation of this number, from 0, with all before it done."""
        self._write(number + 1, number)

    def end(self, number: int) -> None:
        self._write(number + 1, number + 1)

    def undo(self, number: int) -> None:
        """All up to this number are being undone."""
        self._write(number + 1, number + 1, undoing=True)

    def _write(self, begun: int, done: int, *, undoing: bool = False) -> None:
        os.pwrite(self._fd, _FORM.pack(begun, done, undoing), 0)

    def left(self, operations: Sequence[AnyOperation]) -> str:
        """What stays of the list, now that its worker has gone, in words."""
        begun, done, undoing = _FORM.unpack(os.pread(self._fd, _FORM.size, 0))
        if not begun:
            return "nothing of it has been done"
        number = f"the first {done} of {len(operations)} operations"
        if undoing:
            return f"some of {number} may stay, as they were being undone"
        if done == len(operations):
            return "it has been done, and stays"
        last = operations[done]
        doubt = f"{last.about} in {place(last.ns)} may have been done"
        return f"{number} have been done and stay, {doubt}" if done else doubt
