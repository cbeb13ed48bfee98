"""What SQLite's errors mean for whoever runs the daemon."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from orlop.errors import DataLoss, OrlopError, ResourceExhausted, Unavailable

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
_SCARCE = 16 << 20  # bytes
_PRIMARY = 0xFF  # the part of an error code that says which error it is


def told(error: sqlite3.DatabaseError, path: Path) -> OrlopError | None:
    """What to do about a full or damaged disk below the database `path`; None of other errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    unusable = code & _PRIMARY in _UNUSABLE
    refusal = _refusal(path.parent) if unusable else 0
    if not refusal and code == sqlite3.SQLITE_IOERR_FSYNC and _is_scarce(path.parent):
        refusal = errno.ENOSPC  # so btrfs says it, and a moment later there may be room
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
        name = getattr(error, "sqlite_errorname", "no code")
        return Unavailable(f'database "{path}" cannot be used: {error} ({name})')
    if code & _PRIMARY in _DAMAGED:
        return DataLoss(
            f'database "{path}" is damaged ({error}); stop orlopd, see what '
            "`orlopd check` says, and put a backup in its place"
        )
    return None


def _is_scarce(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _SCARCE


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
