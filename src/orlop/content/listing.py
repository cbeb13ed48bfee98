"""All blobs of a namespace as they go out, with no objects in between."""

from __future__ import annotations

from orlop.metadata import Transaction, labels
from orlop.rpc.encoding import delimited, field, integer, maps, times, varint

_INFO = delimited(1)
_DIGEST, _CREATED_AT, _UPDATED_AT, _LABELS = map(delimited, (1, 3, 4, 5))
_SIZE = integer(2)


def blobs(tx: Transaction, kind: str, namespace: str) -> list[bytes]:
    """The `info` of ListContentResponses, by digest; their labels are of `kind`."""
    own_labels = maps(_LABELS, labels.get_raw(tx, kind, namespace))
    return [
        field(
            _INFO,
            field(_DIGEST, digest)
            + _SIZE
            + varint(size)
            + times(_CREATED_AT, created_at, _UPDATED_AT, updated_at)
            + own_labels.get(digest, b""),
        )
        for digest, size, created_at, updated_at in tx.raw(
            "SELECT digest, size, created_at, updated_at FROM content WHERE namespace = ?"
            " ORDER BY digest",
            (namespace,),
        )
    ]
