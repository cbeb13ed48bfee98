"""The bytes of a file in another place: the cheapest way that is possible.

Workers put what is for a while only into the store's trash, under names that begin with a mark: the
daemon, which makes it, removes them after the worker, however that has ended.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.sys.fs import clone

_CHUNK = 1 << 20

Way = Callable[[Path, Path], None]
"""Makes the second path of the first; raises OSError where that is not possible."""


@contextmanager
def marked(trash: Path) -> Iterator[str]:
    """What paths may begin with, in the trash; they are removed when their worker is gone."""
    mark = secrets.token_hex(8)
    try:
        yield str(trash / mark)
    finally:
        for path in trash.glob(f"{mark}-*"):
            path.unlink(missing_ok=True)


def linked(source: Path, path: Path) -> None:
    """Another name of the same file."""
    path.hardlink_to(source)


def cloned(source: Path, path: Path) -> None:
    """Another file of the same blocks."""
    clone(source, path)


def copied(source: Path, path: Path) -> None:
    """Another file, synced."""
    with source.open("rb") as old, path.open("xb") as new:
        os.fchmod(new.fileno(), 0o600)
        shutil.copyfileobj(old, new, _CHUNK)
        new.flush()
        os.fsync(new.fileno())


def bring(source: Path, path: Path, ways: Sequence[Way]) -> str:
    """Go the first of the ways that is possible; its name. Raises what the last one does."""
    *others, last = ways
    for way in others:
        try:
            way(source, path)
        except OSError:
            continue
        return way.__name__
    last(source, path)
    return last.__name__
