"""Rows of the snapshots table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from orlop.metadata import Transaction, clock
from orlop.snapshots.model import Info, Kind, Usage


class Record(NamedTuple):
    """One row; `parent` is the number of the parent's row."""

    id: int
    key: str
    parent: int | None
    kind: Kind
    created_at: int
    updated_at: int
    size: int
    inodes: int

    def info(self, parent: str, labels: Mapping[str, str]) -> Info:
        return Info(self.key, parent, self.kind, self.created_at, self.updated_at, labels)


_COLUMNS = "id, key, parent, kind, created_at, updated_at, size, inodes"


def _record(row: Iterable[Any]) -> Record:
    number, key, parent, kind, *rest = row
    return Record(number, key, parent, Kind(kind), *rest)


def find(tx: Transaction, snapshotter: str, namespace: str, key: str) -> Record | None:
    row = tx.one(
        f"SELECT {_COLUMNS} FROM snapshots WHERE snapshotter = ? AND namespace = ? AND key = ?",
        (snapshotter, namespace, key),
    )
    return _record(row) if row else None


def exists(tx: Transaction, snapshotter: str, namespace: str, key: str) -> bool:
    row = tx.one(
        "SELECT 1 FROM snapshots WHERE snapshotter = ? AND namespace = ? AND key = ?",
        (snapshotter, namespace, key),
    )
    return row is not None


def all_of(tx: Transaction, snapshotter: str, namespace: str) -> list[Record]:
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM snapshots WHERE snapshotter = ? AND namespace = ? ORDER BY key",
        (snapshotter, namespace),
    )
    return [_record(row) for row in rows]


def committed(tx: Transaction, snapshotter: str) -> list[int]:
    rows = tx.all(
        "SELECT id FROM snapshots WHERE snapshotter = ? AND kind = ?",
        (snapshotter, Kind.COMMITTED),
    )
    return [row["id"] for row in rows]


def active(tx: Transaction, snapshotter: str) -> list[tuple[str, Record]]:
    """Those that are not committed, of all namespaces: the namespace, and the row."""
    rows = tx.all(
        f"SELECT namespace, {_COLUMNS} FROM snapshots WHERE snapshotter = ? AND kind <> ?",
        (snapshotter, Kind.COMMITTED),
    )
    return [(row[0], _record(row[1:])) for row in rows]


def newest(tx: Transaction) -> int:
    """When any snapshot was last changed, in nanoseconds; 0 without one."""
    row = tx.one("SELECT max(updated_at) FROM snapshots")
    return row[0] or 0 if row else 0


def chain(tx: Transaction, number: int) -> list[int]:
    """A snapshot and its ancestors, nearest first."""
    rows = tx.all(
        "WITH RECURSIVE chain (id, parent, depth) AS ("
        " SELECT id, parent, 0 FROM snapshots WHERE id = ?"
        " UNION ALL SELECT s.id, s.parent, depth + 1 FROM snapshots s JOIN chain"
        " ON s.id = chain.parent) SELECT id FROM chain ORDER BY depth",
        (number,),
    )
    return [row["id"] for row in rows]


def key_of(tx: Transaction, number: int | None) -> str:
    if number is None:
        return ""
    row = tx.one("SELECT key FROM snapshots WHERE id = ?", (number,))
    return str(row["key"]) if row else ""


def has_children(tx: Transaction, number: int) -> bool:
    return tx.one("SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1", (number,)) is not None


def insert(
    tx: Transaction,
    number: int,
    snapshotter: str,
    namespace: str,
    key: str,
    parent: int | None,
    kind: Kind,
    usage: Usage | None = None,
) -> None:
    now, used = clock.now(), usage or Usage(0, 0)
    tx.execute(
        "INSERT INTO snapshots (id, snapshotter, namespace, key, parent, kind, created_at,"
        " updated_at, size, inodes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, snapshotter, namespace, key, parent, kind, now, now, used.size, used.inodes),
    )


def commit(tx: Transaction, number: int, name: str, parent: int | None, usage: Usage) -> None:
    now = clock.now()
    tx.execute(
        "UPDATE snapshots SET key = ?, parent = ?, kind = ?, created_at = ?, updated_at = ?,"
        " size = ?, inodes = ? WHERE id = ?",
        (name, parent, Kind.COMMITTED, now, now, usage.size, usage.inodes, number),
    )
