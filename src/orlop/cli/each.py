"""Commands that do one thing to several objects: one failure does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from orlop.errors import OrlopError


def for_each(names: Sequence[str], action: Callable[[str], object]) -> int:
    """Do `action` to each name and print it; 1 if any of them failed, each with its own error."""
    status = 0
    for name in names:
        try:
            action(name)
            print(name)
        except OrlopError as error:
            status = failed(error)
    return status


def failed(error: OrlopError) -> int:
    """Report an error that does not end the command; the exit code that it leads to."""
    print(f"orlop: {error}", file=sys.stderr)
    return 1
