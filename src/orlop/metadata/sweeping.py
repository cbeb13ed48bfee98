"""What garbage collection and the rooms that it collects in say to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from orlop.metadata.database import Transaction

Key = tuple[str, str]
"""A namespace, and a name in it."""
Dead = Callable[[Transaction, str, str], bool]
"""Whether nothing keeps the record of that namespace and name, as the transaction sees it."""


class Sweep(Protocol):
    """Removes the records of one kind that are still dead in the transaction that removes them.

    How many it has removed: others may have been faster, and what cannot go yet is left.
    """

    def __call__(self, keys: Iterable[Key], dead: Dead) -> int: ...
