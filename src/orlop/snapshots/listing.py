"""All snapshots of a snapshotter in a namespace as they go out, with no objects in between."""

from __future__ import annotations

from orlop.metadata import Transaction, labels
from orlop.rpc.encoding import delimited, field, integer, maps, times, varint

_INFO = delimited(1)
_NAME, _PARENT, _CREATED_AT, _UPDATED_AT, _LABELS = map(delimited, (1, 2, 4, 5, 6))
_KIND = integer(3)


def snapshots(tx: Transaction, kind: str, snapshotter: str, namespace: str) -> list[bytes]:
    """The `info` of ListSnapshotsResponses, by key; their labels are of `kind`."""
    own_labels = maps(_LABELS, labels.get_raw(tx, kind, namespace))
    rows = tx.raw(
        "SELECT id, key, parent, kind, created_at, updated_at FROM snapshots"
        " WHERE snapshotter = ? AND namespace = ? ORDER BY key",
        (snapshotter, namespace),
    )
    keys = {row[0]: row[1] for row in rows}
    return [
        field(
            _INFO,
            field(_NAME, key)
            + field(_PARENT, keys.get(parent, b""))
            + _KIND
            + varint(number)
            + times(_CREATED_AT, created_at, _UPDATED_AT, updated_at)
            + own_labels.get(key, b""),
        )
        for _, key, parent, number, created_at, updated_at in rows
    ]
