"""Sandboxes as rows of the database; everything here happens in the caller's transaction."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any

from orlop.errors import NotFound
from orlop.metadata import Transaction, labels
from orlop.metadata.database import Row
from orlop.sandboxes.model import Sandbox

KIND = "sandbox"


def exists(tx: Transaction, namespace: str, id: str) -> bool:
    """Whether there is such a sandbox."""
    key = (namespace, id)
    return tx.one("SELECT 1 FROM sandboxes WHERE namespace = ? AND id = ?", key) is not None


def get(tx: Transaction, namespace: str, id: str) -> Sandbox:
    """One sandbox; raises NotFound."""
    row = tx.one("SELECT * FROM sandboxes WHERE namespace = ? AND id = ?", (namespace, id))
    if row is None:
        raise NotFound(f'sandbox "{id}"')
    return _sandbox(tx, row)


def get_all(tx: Transaction, namespace: str) -> list[Sandbox]:
    """Every sandbox of a namespace, by id."""
    rows = tx.all("SELECT * FROM sandboxes WHERE namespace = ? ORDER BY id", (namespace,))
    return [_sandbox(tx, row) for row in rows]


def _sandbox(tx: Transaction, row: Row) -> Sandbox:
    key = (row["namespace"], row["id"])
    extensions = tx.all(
        "SELECT key, value_any FROM sandbox_extensions WHERE namespace = ? AND sandbox = ?", key
    )
    return Sandbox(
        id=row["id"],
        runtime=row["runtime"],
        runtime_options=_parsed(row["runtime_options_any"]),
        spec=_parsed(row["spec_any"]),
        sandboxer=row["sandboxer"],
        labels=labels.get(tx, KIND, *key),
        extensions={name: Any.FromString(value) for name, value in extensions},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def write(tx: Transaction, namespace: str, sandbox: Sandbox) -> None:
    """Insert the sandbox, or write its mutable fields if it is there."""
    tx.execute(
        "INSERT INTO sandboxes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (namespace, id) DO UPDATE SET runtime = excluded.runtime,"
        " runtime_options_any = excluded.runtime_options_any, spec_any = excluded.spec_any,"
        " updated_at = excluded.updated_at",
        (
            namespace,
            sandbox.id,
            sandbox.runtime,
            _serialized(sandbox.runtime_options),
            _serialized(sandbox.spec),
            sandbox.sandboxer,
            sandbox.created_at,
            sandbox.updated_at,
        ),
    )
    labels.replace(tx, KIND, namespace, sandbox.id, sandbox.labels)
    tx.execute(
        "DELETE FROM sandbox_extensions WHERE namespace = ? AND sandbox = ?",
        (namespace, sandbox.id),
    )
    tx.executemany(
        "INSERT INTO sandbox_extensions VALUES (?, ?, ?, ?)",
        [
            (namespace, sandbox.id, name, value.SerializeToString())
            for name, value in sandbox.extensions.items()
        ],
    )


def delete(tx: Transaction, namespace: str, id: str) -> None:
    """Remove the sandbox with all that hangs on it; raises NotFound."""
    key = (namespace, id)
    if not tx.execute("DELETE FROM sandboxes WHERE namespace = ? AND id = ?", key).rowcount:
        raise NotFound(f'sandbox "{id}"')
    labels.remove(tx, KIND, *key)


def _parsed(value: bytes | None) -> Any | None:
    return None if value is None else Any.FromString(value)


def _serialized(value: Any | None) -> bytes | None:
    return None if value is None else value.SerializeToString()
