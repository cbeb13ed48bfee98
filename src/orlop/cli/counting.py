"""Progress in bytes, as a line."""

from __future__ import annotations

import sys

from orlop.cli import table


class Counting:
    """One line on a terminal that says how many bytes are done, and goes away."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what = what
        self._shown = not quiet and sys.stderr.isatty()

    def show(self, done: int, total: int) -> None:
        if self._shown and total:
            text = f"{self._what}: {table.size(done)} of {table.size(total)}"
            print(f"\r{text} ({100 * done // total}%)\033[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
