"""How the database file is opened: by its daemon, and by who reads it beside that one."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from orlop.errors import Unavailable
from orlop.sys import btrfs
from orlop.sys.fs import clone

_COPY = "metadata-read-"
_ALONE = "vfs=unix-excl"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# EINVAL where btrfs keeps checksums of one of both only.
_NO_CLONES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY)
_TRIES = 100
_LOG_HEADER = 32  # bytes


def address(database: Path) -> str:
    """The URI by which to open it: on btrfs for this process alone.

    What processes share of a database is a file in memory, and btrfs needs room for each change of
    one: on a full disk it ends the process (SIGBUS). A database of one process has no such file.
    Others read a copy (`reading`).
    """
    return database.absolute().as_uri() + (f"?{_ALONE}" if _is_on_btrfs(database) else "")


def _is_on_btrfs(database: Path) -> bool:
    try:
        btrfs.check(database.parent)
    except OSError:
        return False
    return True


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads what is there now, also beside a daemon that writes.

    Never in that daemon's own process: whoever closes a file gives up all its locks.
    """
    connection = _of_copy(database) if _is_on_btrfs(database) else _connect(database, "mode=ro")
    with closing(connection):
        yield connection


def _connect(database: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?{how}", uri=True)


def _of_copy(database: Path) -> sqlite3.Connection:
    """A connection to a copy, which goes with it; elsewhere if its disk has no room for one."""
    try:
        return _read_copy(database, tempfile.mkdtemp(prefix=_COPY, dir=database.parent))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
    return _read_copy(database, tempfile.mkdtemp(prefix=_COPY))


def _read_copy(database: Path, folder: str) -> sqlite3.Connection:
    try:
        connection = _connect(_copy(database, Path(folder)), _ALONE)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA schema_version")  # from now on database and log are open
    finally:
        shutil.rmtree(folder)
    return connection


def remove_copies(folder: Path) -> None:
    """Those of readers that were killed while they copied; there must be none that does."""
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
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
        shutil.copyfile(source, path)
