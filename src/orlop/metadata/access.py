"""How the database file is opened: by its daemon, and by who reads it beside that one."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from orlop.errors import Unavailable
from orlop.sys import btrfs
from orlop.sys.fs import clone

_COPY = "metadata-read-"
_TRIES = 100
_LOG_HEADER = 32  # bytes


def address(database: Path) -> str:
    """The URI by which to open it: on btrfs for this process alone.

    What processes share of a database is a file in memory, and btrfs needs room for each change of
    one: on a full disk it ends the process (SIGBUS). A database of one process has no such file.
    Others read a copy (`reading`).
    """
    return database.absolute().as_uri() + ("?vfs=unix-excl" if _is_on_btrfs(database) else "")


def _is_on_btrfs(database: Path) -> bool:
    try:
        btrfs.check(database.parent)
    except OSError:
        return False
    return True


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads what is there now, also beside a daemon that writes."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with ExitStack() as stack:
        if _is_on_btrfs(database):
            folder = tempfile.TemporaryDirectory(prefix=_COPY, dir=database.parent)
            uri = address(_copy(database, Path(stack.enter_context(folder))))
        yield stack.enter_context(closing(sqlite3.connect(uri, uri=True)))


def remove_copies(folder: Path) -> None:
    """Those of readers that were killed; there must be none that reads."""
    for each in folder.glob(f"{_COPY}*"):
        shutil.rmtree(each, ignore_errors=True)


def _copy(database: Path, folder: Path) -> Path:
    """What is there now, of the same blocks, while its owner goes on to write.

    All that is not in the database, or only just being written to it, is in the log; unless that is
    begun anew meanwhile, with other salts in its header (https://sqlite.org/fileformat.html, 4.1).
    """
    copy, log = folder / database.name, Path(f"{database}-wal")
    for _ in range(_TRIES):
        before = _salts(log)
        _clone(database, copy)
        with suppress(FileNotFoundError):
            _clone(log, Path(f"{copy}-wal"))
        if _salts(log) == before:
            return copy
        for each in folder.iterdir():
            each.unlink()
    raise Unavailable(f'database "{database}" changes too quickly to be read; try again')


def _salts(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            return file.read(_LOG_HEADER)
    except FileNotFoundError:
        return b""


def _clone(source: Path, path: Path) -> None:
    try:
        clone(source, path)
    except FileNotFoundError:
        raise
    except OSError:  # of one of both, and not of the other, btrfs keeps checksums
        shutil.copyfile(source, path)
