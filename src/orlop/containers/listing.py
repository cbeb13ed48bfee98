"""All containers of a namespace as they go out, with no objects in between."""

from __future__ import annotations

from orlop.metadata import Transaction, labels
from orlop.rpc.encoding import delimited, field, maps, times

_CONTAINERS = delimited(1)
# Of Container, and of its Runtime.
_ID, _LABELS, _IMAGE, _RUNTIME, _SPEC, _SNAPSHOTTER = map(delimited, (1, 2, 3, 4, 5, 6))
_SNAPSHOT_KEY, _CREATED_AT, _UPDATED_AT, _EXTENSIONS, _SANDBOX = map(delimited, (7, 8, 9, 10, 11))
_RUNTIME_NAME, _RUNTIME_OPTIONS = map(delimited, (1, 2))


def containers(tx: Transaction, kind: str, namespace: str) -> list[bytes]:
    """The `containers` of a ListContainersResponse, by id; their labels are of `kind`."""
    own_labels = maps(_LABELS, labels.get_raw(tx, kind, namespace))
    extensions = maps(
        _EXTENSIONS,
        tx.raw(
            "SELECT container, key, value_any FROM container_extensions WHERE namespace = ?",
            (namespace,),
        ),
    )
    rows = tx.raw(
        "SELECT id, image, runtime, runtime_options_any, spec_any, snapshotter, snapshot_key,"
        " sandbox, created_at, updated_at FROM containers WHERE namespace = ? ORDER BY id",
        (namespace,),
    )
    return [
        field(
            _CONTAINERS,
            field(_ID, name)
            + own_labels.get(name, b"")
            + field(_IMAGE, image)
            + field(_RUNTIME, field(_RUNTIME_NAME, runtime) + _options(options))
            + field(_SPEC, spec)
            + field(_SNAPSHOTTER, snapshotter)
            + field(_SNAPSHOT_KEY, key)
            + times(_CREATED_AT, created, _UPDATED_AT, updated)
            + extensions.get(name, b"")
            + field(_SANDBOX, sandbox),
        )
        for name, image, runtime, options, spec, snapshotter, key, sandbox, created, updated in rows
    ]


def _options(stored: bytes | None) -> bytes:
    return b"" if stored is None else field(_RUNTIME_OPTIONS, stored)
