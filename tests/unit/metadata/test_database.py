"""The blocks of transactions: what is kept, what is told, and that the next one can begin."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import NotFound, ResourceExhausted, Unavailable
from orlop.metadata import Database, disk

_INSERT = "INSERT INTO namespaces VALUES (?)"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "meta.db")
    yield database
    database.close()


def _names(database: Database) -> list[str]:
    with database.read() as tx:
        return [row["name"] for row in tx.all("SELECT name FROM namespaces ORDER BY name")]


def _add(database: Database, name: str) -> None:
    with database.write() as tx:
        tx.execute(_INSERT, (name,))


@pytest.mark.parametrize("error", [NotFound("it"), KeyboardInterrupt(), GeneratorExit()])
def test_what_raises_leaves_nothing(database: Database, error: BaseException) -> None:
    told: list[str] = []
    with pytest.raises(type(error)) as raised, database.write() as tx:
        tx.execute(_INSERT, ("gone",))
        tx.after_commit(lambda: told.append("gone"))
        raise error
    assert raised.value is error
    _add(database, "stays")
    assert (_names(database), told) == (["stays"], [])


def test_an_error_that_is_not_the_disks_stays_what_it_is(database: Database) -> None:
    _add(database, "one")
    with pytest.raises(sqlite3.IntegrityError), database.write() as tx:
        tx.execute(_INSERT, ("one",))
    with pytest.raises(sqlite3.OperationalError, match="no such table"), database.read() as tx:
        tx.one("SELECT * FROM absent")
    _add(database, "two")
    assert _names(database) == ["one", "two"]


def test_a_write_that_cannot_begin_is_told_and_holds_up_nobody(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database._writer.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(Unavailable, match="locked"), database.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    _add(database, "later")
    assert _names(database) == ["later"]


def test_a_commit_that_fails_leaves_nothing(database: Database) -> None:
    heard: list[str] = []
    database.on_write = lambda: heard.append("write")
    with pytest.raises(sqlite3.IntegrityError), database.write() as tx:
        tx.execute("PRAGMA defer_foreign_keys = ON")
        tx.execute("INSERT INTO leases VALUES ('nowhere', 'lease', 0)")
        tx.after_commit(lambda: heard.append("commit"))
    assert heard == []
    _add(database, "next")
    assert (_names(database), heard) == (["next"], ["write"])


def test_what_comes_after_the_commit_may_write_and_fail(database: Database) -> None:
    def fail() -> None:
        _add(database, "second")
        raise NotFound("it")

    with pytest.raises(NotFound), database.write() as tx:
        tx.execute(_INSERT, ("first",))
        tx.after_commit(fail)
    assert _names(database) == ["first", "second"]


def test_a_reader_that_is_not_sound_is_not_used_again(database: Database) -> None:
    with database.read() as tx:
        tx.execute("COMMIT")  # as where SQLite has rolled back by itself
    with database.read() as tx:
        tx._connection.close()
    assert _names(database) == []


def test_writers_take_turns(database: Database) -> None:
    began = threading.Event()
    names = [str(number) for number in range(20)]

    def add(name: str) -> None:
        began.wait()
        _add(database, name)

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    began.set()
    for thread in threads:
        thread.join()
    assert _names(database) == sorted(names)
    found = database.transactions.read()
    assert sum(found[("write",)].counts) == len(names) == sum(found[("wait",)].counts)


def test_a_disk_that_has_no_room_to_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As btrfs says it; with much room it is a disk that does not work."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    monkeypatch.setattr(disk, "_SCARCE", 1 << 62)
    assert isinstance(disk.told(error, tmp_path / "meta.db"), ResourceExhausted)
    monkeypatch.setattr(disk, "_SCARCE", 0)
    assert isinstance(disk.told(error, tmp_path / "meta.db"), Unavailable)
