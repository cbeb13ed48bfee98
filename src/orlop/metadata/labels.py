"""Labels: string pairs on every kind of record.

`kind` is 'namespace', 'content', 'image', 'container', 'lease', 'sandbox', 'mount', 'network',
'netns' or 'snapshot/<snapshotter>'; `owner` is the record's key inside its namespace. Of the kind
'root' is the database itself (`belonging`). A label with an empty value is not stored: setting one
to "" removes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from orlop.errors import InvalidArgument
from orlop.metadata.database import Transaction

PAIR_MAX = 4096
_KEY_SHOWN = 64


def validate(labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument, naming the key, for a pair of more than 4096 bytes."""
    for key, value in labels.items():
        length = len(key.encode()) + len(value.encode())
        if length > PAIR_MAX:
            raise InvalidArgument(
                f'label "{key[:_KEY_SHOWN]}" has {length} bytes of key and value, '
                f"more than the {PAIR_MAX} allowed"
            )


def get(tx: Transaction, kind: str, namespace: str, owner: str) -> dict[str, str]:
    """The labels of one record."""
    rows = tx.all(
        "SELECT key, value FROM labels WHERE kind = ? AND namespace = ? AND owner = ?",
        (kind, namespace, owner),
    )
    return {row["key"]: row["value"] for row in rows}


def get_all(tx: Transaction, kind: str, namespace: str) -> dict[str, dict[str, str]]:
    """The labels of every record of a kind in a namespace, by owner."""
    found: dict[str, dict[str, str]] = {}
    for owner, key, value in tx.execute(
        "SELECT owner, key, value FROM labels WHERE kind = ? AND namespace = ?", (kind, namespace)
    ):
        found.setdefault(owner, {})[key] = value
    return found


def get_raw(tx: Transaction, kind: str, namespace: str) -> list[tuple[bytes, bytes, bytes]]:
    """The labels of every record of a kind in a namespace: owner, key and value."""
    return tx.raw(
        "SELECT owner, key, value FROM labels WHERE kind = ? AND namespace = ?", (kind, namespace)
    )


def replace(
    tx: Transaction, kind: str, namespace: str, owner: str, labels: Mapping[str, str]
) -> None:
    """Make `labels` the labels of a record, removing all others; what stays is not touched."""
    before = get(tx, kind, namespace, owner)
    after = {key: value for key, value in labels.items() if value}
    gone = [(kind, namespace, owner, key) for key in before if before[key] != after.get(key)]
    if gone:
        tx.executemany(
            "DELETE FROM labels WHERE kind = ? AND namespace = ? AND owner = ? AND key = ?", gone
        )
    rows = [
        (kind, namespace, owner, key, value)
        for key, value in after.items()
        if before.get(key) != value
    ]
    if rows:
        tx.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?)", rows)


def remove(tx: Transaction, kind: str, namespace: str, owner: str) -> None:
    """Drop all labels of a record."""
    tx.execute(
        "DELETE FROM labels WHERE kind = ? AND namespace = ? AND owner = ?",
        (kind, namespace, owner),
    )
