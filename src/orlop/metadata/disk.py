"""What SQLite's errors mean for whoever runs the daemon."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from orlop.errors import DataLoss, OrlopError, ResourceExhausted, Unavailable
from orlop.sys import btrfs
from orlop.sys.fs import sync_filesystem

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNUSABLE = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,  # another program holds it
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
)
# The memory that processes share is a file as well, for which there was no room.
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_ROOM = 1 << 16  # bytes, which SQLite at least needs
_PRIMARY = 0xFF  # the part of an error code that says which error it is


def make_shared_memory(database: Path) -> None:
    """The file that SQLite's connections share in memory, before they are there.

    btrfs writes anything to a new place, so that on a full disk a change of such memory ends the
    process (SIGBUS): it is told to write this where it is. Other filesystems do so anyway.
    """
    with suppress(OSError):
        fd = os.open(f"{database}-shm", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            btrfs.write_in_place(fd)
        finally:
            os.close(fd)


def place_shared_memory(database: Path) -> None:
    """Have what SQLite has made of that file on disk: only then it has a place to be written at.

    With all else that is there: whoever opens that file gives up SQLite's locks when he closes it.
    """
    with suppress(OSError):
        btrfs.check(database.parent)
        sync_filesystem(str(database.parent))


def told(error: sqlite3.DatabaseError, path: Path) -> OrlopError | None:
    """What to do about a full or damaged disk below the database `path`; None of other errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    unusable = code & _PRIMARY in _UNUSABLE
    refusal = _refusal(path.parent) if unusable else 0
    if code in _FULL or refusal in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f'no space left for the database "{path}"; free some or enlarge the disk'
        )
    if refusal == errno.EROFS:
        return Unavailable(
            f'the filesystem of "{path.parent}" is read-only; see whether the log of '
            "the kernel tells of a bad disk, and start orlopd again when that is mended"
        )
    if unusable:
        return Unavailable(f'database "{path}" cannot be used: {error}')
    if code & _PRIMARY in _DAMAGED:
        return DataLoss(
            f'database "{path}" is damaged ({error}); stop orlopd, see what '
            "`orlopd check` says, and put a backup in its place"
        )
    return None


def _refusal(folder: Path) -> int:
    """The error number with which nothing can be added, 0 if it can.

    What a disk counts as free need not be so (btrfs), nor what is mounted for writing.
    """
    probe = folder / "room"  # its name needs room as well
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _ROOM)
    except OSError as error:
        return error.errno or 0
    finally:
        with suppress(OSError):
            probe.unlink()
    return 0
