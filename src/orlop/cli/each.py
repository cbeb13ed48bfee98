"""Commands that do one thing to several objects: one failure does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from orlop.cli.terminal import printable
from orlop.errors import AlreadyExists, NotFound, OrlopError


def for_each(names: Sequence[str], action: Callable[[str], object]) -> int:
    """Do `action` to each name and print it; 1 if any of them failed, each with its own error."""
    status = 0
    for name in names:
        try:
            action(name)
            print(name)
        except OrlopError as error:
            status = failed(error, about=name)
    return status


def failed(error: OrlopError, *, about: str = "") -> int:
    """Report an error that does not end the command; the exit code that it leads to.

    `about` is what it was done to, which some errors do not name.
    """
    text = told(error)
    prefix = f'"{about}": ' if about and f'"{about}"' not in text else ""
    print(f"orlop: {prefix}{text}", file=sys.stderr)
    return 1


def told(error: OrlopError) -> str:
    """An error for people: what class it is of goes without saying, but for what is not there."""
    text = str(error)
    if not isinstance(error, (NotFound, AlreadyExists)):
        text = text.removesuffix(f": {error.phrase}")
    return "\n".join(map(printable, text.expandtabs().split("\n")))
