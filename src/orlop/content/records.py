"""Rows of the content and ingests tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from orlop.content.model import Info
from orlop.metadata import Transaction, clock
from orlop.metadata.database import Row

# A write that nobody takes up again is given up after a day.
_INGEST_LIFE = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Record:
    digest: str
    size: int
    created_at: int
    updated_at: int

    def info(self, labels: Mapping[str, str]) -> Info:
        return Info(self.digest, self.size, self.created_at, self.updated_at, labels)


@dataclass(frozen=True, slots=True)
class IngestRow:
    ref: str
    directory: str
    expected: str
    total: int
    started_at: int


_COLUMNS = "digest, size, created_at, updated_at"
_INGEST_COLUMNS = "ref, directory, expected, total, started_at"


def find(tx: Transaction, namespace: str, digest: str) -> Record | None:
    row = tx.one(
        f"SELECT {_COLUMNS} FROM content WHERE namespace = ? AND digest = ?",
        (namespace, digest),
    )
    return Record(*row) if row else None


def all_of(tx: Transaction, namespace: str) -> list[Record]:
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM content WHERE namespace = ? ORDER BY digest",
        (namespace,),
    )
    return [Record(*row) for row in rows]


def insert(tx: Transaction, namespace: str, digest: str, size: int) -> None:
    now = clock.now()
    tx.execute("INSERT INTO content VALUES (?, ?, ?, ?, ?)", (namespace, digest, size, now, now))


def touch(tx: Transaction, namespace: str, digest: str) -> None:
    tx.execute(
        "UPDATE content SET updated_at = ? WHERE namespace = ? AND digest = ?",
        (clock.now(), namespace, digest),
    )


def delete(tx: Transaction, namespace: str, digest: str) -> bool:
    cursor = tx.execute(
        "DELETE FROM content WHERE namespace = ? AND digest = ?", (namespace, digest)
    )
    return cursor.rowcount > 0


def delete_everywhere(tx: Transaction, digest: str) -> None:
    tx.execute("DELETE FROM content WHERE digest = ?", (digest,))
    tx.execute("DELETE FROM labels WHERE kind = 'content' AND owner = ?", (digest,))
    tx.execute("DELETE FROM lease_resources WHERE type = 'content' AND id = ?", (digest,))


def set_size(tx: Transaction, digest: str, size: int) -> None:
    tx.execute("UPDATE content SET size = ? WHERE digest = ?", (size, digest))


def known_anywhere(tx: Transaction, digest: str) -> bool:
    return tx.one("SELECT 1 FROM content WHERE digest = ? LIMIT 1", (digest,)) is not None


def size_in_any(tx: Transaction, digest: str, shareable_label: str | None) -> int | None:
    """The size of a blob that some namespace has; with a label, only one that carries it."""
    row: Row | None
    if shareable_label is None:
        row = tx.one("SELECT size FROM content WHERE digest = ? LIMIT 1", (digest,))
    else:
        row = tx.one(
            "SELECT c.size FROM content c JOIN labels l ON l.kind = 'namespace'"
            " AND l.owner = c.namespace AND l.key = ? AND l.value = 'true'"
            " WHERE c.digest = ? LIMIT 1",
            (shareable_label, digest),
        )
    return int(row["size"]) if row else None


def all_sizes(tx: Transaction) -> dict[str, int]:
    return {row["digest"]: row["size"] for row in tx.all("SELECT digest, size FROM content")}


def find_ingest(tx: Transaction, namespace: str, ref: str) -> IngestRow | None:
    row = tx.one(
        f"SELECT {_INGEST_COLUMNS} FROM ingests WHERE namespace = ? AND ref = ?",
        (namespace, ref),
    )
    return IngestRow(*row) if row else None


def ingests_of(tx: Transaction, namespace: str) -> list[IngestRow]:
    rows = tx.all(
        f"SELECT {_INGEST_COLUMNS} FROM ingests WHERE namespace = ? ORDER BY ref",
        (namespace,),
    )
    return [IngestRow(*row) for row in rows]


def goes_on(found: IngestRow | None, total: int, expected: str) -> TypeGuard[IngestRow]:
    """Whether a write is that of a row; else what was written is of something else."""
    return (
        found is not None
        and (not total or found.total in (0, total))
        and (not expected or found.expected in ("", expected))
    )


def begin_ingest(
    tx: Transaction,
    namespace: str,
    ref: str,
    directory: str,
    total: int,
    expected: str,
) -> IngestRow:
    """The row of an ingest, a new one unless the write goes on."""
    now = clock.now()
    found = find_ingest(tx, namespace, ref)
    if goes_on(found, total, expected):
        tx.execute(
            "UPDATE ingests SET updated_at = ?, expires_at = ?, total = max(total, ?), expected = ?"
            " WHERE namespace = ? AND ref = ?",
            (now, now + _INGEST_LIFE, total, expected or found.expected, namespace, ref),
        )
        return found
    delete_ingest(tx, namespace, ref)
    tx.execute(
        "INSERT INTO ingests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (namespace, ref, directory, expected, total, now, now, now + _INGEST_LIFE),
    )
    return IngestRow(ref, directory, expected, total, now)


def delete_ingest(tx: Transaction, namespace: str, ref: str) -> None:
    tx.execute("DELETE FROM ingests WHERE namespace = ? AND ref = ?", (namespace, ref))


def delete_expired_ingests(tx: Transaction, now: int) -> None:
    """Ingests past their time that no lease holds."""
    tx.execute(
        "DELETE FROM ingests WHERE expires_at < ? AND NOT EXISTS ("
        "SELECT 1 FROM lease_resources l WHERE l.namespace = ingests.namespace"
        " AND l.type = 'ingests' AND l.id = ingests.ref)",
        (now,),
    )


def lease_blob_instead(tx: Transaction, namespace: str, ref: str, digest: str) -> None:
    """Leases that hold an ingest hold the blob that came of it."""
    tx.execute(
        "INSERT OR IGNORE INTO lease_resources SELECT namespace, lease, 'content', ?"
        " FROM lease_resources WHERE namespace = ? AND type = 'ingests' AND id = ?",
        (digest, namespace, ref),
    )
    release_from_leases(tx, namespace, "ingests", ref)


def release_from_leases(tx: Transaction, namespace: str, resource_type: str, id: str) -> None:
    tx.execute(
        "DELETE FROM lease_resources WHERE namespace = ? AND type = ? AND id = ?",
        (namespace, resource_type, id),
    )


def ingest_directories(tx: Transaction) -> set[str]:
    return {row["directory"] for row in tx.all("SELECT directory FROM ingests")}
