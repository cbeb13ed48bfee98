"""The SQLite database: connections, transactions, schema versions.

WAL mode, `synchronous=FULL`: a committed transaction survives a power cut. There is one writer at a
time, and readers see a consistent snapshot without waiting for it.

Each call has some blocks, which are classes: generators would cost more than BEGIN and ROLLBACK do.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any, cast

from orlop.errors import FailedPrecondition
from orlop.metadata import access, disk
from orlop.tally import Timing

SCHEMA_VERSION = 8
_IDLE_READERS = 8

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
        access.remove_copies(path.parent)
        self._address = access.address(path)
        try:
            self._writer = self._connect()
            self._migrate()
        except sqlite3.DatabaseError as error:
            self._explain(error)
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._address,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            uri=True,
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

    def read(self) -> AbstractContextManager[Transaction]:
        """A read transaction: one consistent snapshot, never blocked by a writer."""
        return _Reading(self)

    def write(self) -> AbstractContextManager[Transaction]:
        """A write transaction: committed when the block ends, rolled back when it raises.

        Keep it short; never call out of the database room's users while it is open, and do file
        work before or after. Raises ResourceExhausted when the disk is full, Unavailable when it is
        read-only.
        """
        return _Writing(self)

    def close(self) -> None:
        with self._pool_lock:
            self._closed = True
            readers, self._readers = self._readers, []
        for connection in readers:
            connection.close()
        with self._write_lock:
            self._writer.close()

    def _explain(self, error: BaseException | None) -> None:
        """Raise what says what to do about a full or damaged disk, if that is what an error is."""
        if isinstance(error, sqlite3.DatabaseError) and (told := disk.told(error, self.path)):
            raise told from error

    def _begin_read(self) -> sqlite3.Connection:
        """A connection in a read transaction, for `_end_read`."""
        connection = self._take_reader()
        try:
            connection.execute("BEGIN DEFERRED")
        except BaseException:
            connection.close()
            raise
        return connection

    def _end_read(self, connection: sqlite3.Connection) -> None:
        """One that cannot end its transaction begins no other, and what was read counts."""
        try:
            if connection.in_transaction:  # SQLite may have rolled back by itself
                connection.execute("ROLLBACK")
        except sqlite3.DatabaseError:
            connection.close()
            return
        self._give_back(connection)

    def _end_write(self, *, commit: bool) -> None:
        """With the lock held, which is released."""
        try:
            if commit:
                self._writer.execute("COMMIT")
        finally:
            try:
                if self._writer.in_transaction:  # SQLite may have rolled back by itself
                    self._writer.execute("ROLLBACK")
            finally:
                self._write_lock.release()

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


class _Reading:
    """The block of a read transaction."""

    __slots__ = ("_began", "_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Transaction:
        self._began = time.perf_counter()
        try:
            self._connection = self._database._begin_read()
        except sqlite3.DatabaseError as error:
            self._database._explain(error)
            raise
        return Transaction(self._connection)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        database = self._database
        database._end_read(self._connection)
        database.transactions.observe(time.perf_counter() - self._began, "read")
        database._explain(error)


class _Writing:
    """The block of a write transaction."""

    __slots__ = ("_began", "_database", "_transaction", "_wanted")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._transaction = Transaction(database._writer)

    def __enter__(self) -> Transaction:
        database = self._database
        self._wanted = time.perf_counter()
        database._write_lock.acquire()
        self._began = time.perf_counter()
        try:
            database._writer.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            database._write_lock.release()
            database._explain(error)
            raise
        return self._transaction

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        database = self._database
        try:
            database._end_write(commit=error is None)
        except sqlite3.DatabaseError as failure:
            database._explain(failure)
            raise
        ended = time.perf_counter()
        if error is not None:
            database._explain(error)
            return
        database.transactions.observe(self._began - self._wanted, "wait")
        database.transactions.observe(ended - self._began, "write")
        database.on_write()
        self._transaction.run_after_commit()
