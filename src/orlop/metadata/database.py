"""The SQLite database: connections, transactions, schema versions.

WAL mode, `synchronous=FULL`: a committed transaction survives a power cut. There is one writer at a
time, and readers see a consistent snapshot without waiting for it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, cast

from orlop.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from orlop.tally import Timing

SCHEMA_VERSION = 8
_IDLE_READERS = 8
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

Row = sqlite3.Row
Params = Sequence[Any]


class Transaction:
    """A view of the database that is consistent, and for writes all-or-nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._after_commit: list[Callable[[], object]] = []

    def execute(self, sql: str, params: Params = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, params)

    def executemany(self, sql: str, rows: Sequence[Params]) -> None:
        self._connection.executemany(sql, rows)

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """The first row, or None."""
        return cast("Row | None", self._connection.execute(sql, params).fetchone())

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()

    def raw(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        """All rows, text as the bytes that it is stored as: for those who only pass it on."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        self._connection.text_factory = bytes
        try:
            return cursor.execute(sql, params).fetchall()
        finally:
            self._connection.text_factory = str

    def after_commit(self, action: Callable[[], object]) -> None:
        """Run `action` once the transaction is durable and its lock released; not on rollback."""
        self._after_commit.append(action)

    def run_after_commit(self) -> None:
        for action in self._after_commit:
            action()


class Database:
    """The database file at `path`, created and migrated when opened.

    Raises FailedPrecondition when the file was written by a newer orlop, and, as all that reads or
    writes, DataLoss when it is damaged, Unavailable when it cannot be used. `on_write` is called
    after each write, and must not wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self.on_write: Callable[[], None] = lambda: None
        self.transactions = Timing("kind")
        with self._disk_errors():
            self._writer = self._connect()
            self._migrate()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA busy_timeout = 10000")
        return connection

    def _migrate(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise FailedPrecondition(
                f'database "{self.path}" has schema version {version}, this orlop knows up to '
                f"{SCHEMA_VERSION}; run the newer orlop that wrote it"
            )
        for target in range(version + 1, SCHEMA_VERSION + 1):
            script = resources.files(__package__).joinpath(f"schema_v{target}.sql").read_text()
            self._writer.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {target};\nCOMMIT;"
            )

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction: one consistent snapshot, never blocked by a writer."""
        with self._disk_errors():
            connection = self._take_reader()
        began = time.perf_counter()
        try:
            with self._disk_errors():
                connection.execute("BEGIN DEFERRED")
                try:
                    yield Transaction(connection)
                finally:
                    connection.execute("ROLLBACK")
        finally:
            self._give_back(connection)
            self.transactions.observe(time.perf_counter() - began, "read")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A write transaction: committed when the block ends, rolled back when it raises.

        Keep it short; never call out of the database room's users while it is open, and do file
        work before or after. Raises ResourceExhausted when the disk is full, Unavailable when it is
        read-only.
        """
        transaction = Transaction(self._writer)
        wanted = time.perf_counter()
        with self._write_lock, self._disk_errors():
            began = time.perf_counter()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield transaction
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite may have rolled back by itself
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                ended = time.perf_counter()
        self.transactions.observe(began - wanted, "wait")
        self.transactions.observe(ended - began, "write")
        self.on_write()
        transaction.run_after_commit()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn a full or damaged disk into an error that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0)
            unusable = code & _PRIMARY in _UNUSABLE
            refusal = _refusal(self.path.parent) if unusable else 0
            if code in _FULL or refusal in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(
                    f'no space left for the database "{self.path}"; free some or enlarge the disk'
                ) from error
            if refusal == errno.EROFS:
                raise Unavailable(
                    f'the filesystem of "{self.path.parent}" is read-only; see whether the log of '
                    "the kernel tells of a bad disk, and start orlopd again when that is mended"
                ) from error
            if unusable:
                raise Unavailable(f'database "{self.path}" cannot be used: {error}') from error
            if code & _PRIMARY in _DAMAGED:
                raise DataLoss(
                    f'database "{self.path}" is damaged ({error}); stop orlopd, see what '
                    "`orlopd check` says, and put a backup in its place"
                ) from error
            raise

    def close(self) -> None:
        with self._pool_lock:
            self._closed = True
            readers, self._readers = self._readers, []
        for connection in readers:
            connection.close()
        with self._write_lock:
            self._writer.close()

    def _take_reader(self) -> sqlite3.Connection:
        with self._pool_lock:
            if self._readers:
                return self._readers.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            if not self._closed and len(self._readers) < _IDLE_READERS:
                self._readers.append(connection)
                return
        connection.close()


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
