"""Walks through trees that others have made: deeper than a path can be long, with links that lead
out. No link is followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
_RULES = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
# Characters of a path; a name of up to 255, of up to four bytes each, comes to it.
_PATH_MAX = 700
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Folder:
    """An open folder, closed when nothing needs it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Place(NamedTuple):
    """Where a folder is, from one above it that is open; many places share few of those."""

    base: Folder
    path: str

    def of(self, name: str) -> Place:
        return Place(self.base, f"{self.path}/{name}")


def walk(root: str, look: Callable[[int, Place], Iterable[str]], *, changing: bool = False) -> None:
    """Have `look` see every folder of a tree, its root first, by an open descriptor and its place.

    It says which folders below are to be seen. Raises OSError for one that cannot be opened; in a
    tree that others are `changing` those that are gone are passed over.
    """
    waiting = [Place(Folder(os.open(root, _FOLDER | os.O_CLOEXEC)), ".")]
    while waiting:
        place = waiting.pop()
        try:
            here = Folder(openat2(place.base.fd, place.path, _FOLDER, 0, _RULES))
        except OSError as error:
            if changing and error.errno in _GONE:
                continue
            raise
        if len(place.path) > _PATH_MAX:
            place = Place(here, ".")
        waiting += map(place.of, look(here.fd, place))
