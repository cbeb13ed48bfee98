"""Containers as rows of the database; everything here happens in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.any_pb2 import Any

from orlop.containers.model import Container, Facts
from orlop.errors import NotFound
from orlop.metadata import Transaction, labels
from orlop.metadata.database import Row

KIND = "container"
_COLUMNS = (
    "id, image, runtime, runtime_options_any, spec_any, snapshotter, snapshot_key, sandbox,"
    " created_at, updated_at"
)


def exists(tx: Transaction, namespace: str, id: str) -> bool:
    """Whether there is such a container."""
    key = (namespace, id)
    return tx.one("SELECT 1 FROM containers WHERE namespace = ? AND id = ?", key) is not None


def get(tx: Transaction, namespace: str, id: str) -> Container:
    """One container; raises NotFound."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM containers WHERE namespace = ? AND id = ?", (namespace, id)
    )
    if row is None:
        raise NotFound(f'container "{id}"')
    extensions = tx.all(
        "SELECT key, value_any FROM container_extensions WHERE namespace = ? AND container = ?",
        (namespace, id),
    )
    return _container(
        row,
        labels.get(tx, KIND, namespace, id),
        {key: Any.FromString(value) for key, value in extensions},
    )


def get_all(tx: Transaction, namespace: str) -> Iterator[Container]:
    """Every container of a namespace, by id; three queries, however many there are."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM containers WHERE namespace = ? ORDER BY id", (namespace,)
    )
    all_labels = labels.get_all(tx, KIND, namespace)
    extensions = _all_extensions(tx, namespace)
    for row in rows:
        yield _container(row, all_labels.get(row[0], {}), extensions.get(row[0], {}))


def facts(tx: Transaction, keys: Sequence[str]) -> dict[tuple[str, str], Facts]:
    """Of all namespaces, by namespace and id, with those labels alone that `keys` names."""
    found: dict[tuple[str, str], Facts] = {}
    for namespace, name, image, runtime, snapshotter, key in tx.execute(
        "SELECT namespace, id, image, runtime, snapshotter, snapshot_key FROM containers"
    ):
        found[namespace, name] = Facts(image, runtime, snapshotter, key, {})
    marks = ", ".join("?" * len(keys))
    for namespace, name, key, value in tx.execute(
        f"SELECT namespace, owner, key, value FROM labels WHERE kind = ? AND key IN ({marks})",
        (KIND, *keys),
    ):
        if (container := found.get((namespace, name))) is not None:
            container.labels[key] = value
    return found


def _all_extensions(tx: Transaction, namespace: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for container, key, value in tx.execute(
        "SELECT container, key, value_any FROM container_extensions WHERE namespace = ?",
        (namespace,),
    ):
        found.setdefault(container, {})[key] = Any.FromString(value)
    return found


def _container(row: Row, own_labels: Mapping[str, str], extensions: Mapping[str, Any]) -> Container:
    # By position: lists are long, and to look columns up by name takes a third of the time.
    name, image, runtime, options, spec, snapshotter, key, sandbox, created_at, updated_at = row
    return Container(
        id=name,
        image=image,
        runtime=runtime,
        runtime_options=None if options is None else Any.FromString(options),
        spec=Any.FromString(spec),
        snapshotter=snapshotter,
        snapshot_key=key,
        sandbox=sandbox,
        labels=own_labels,
        extensions=extensions,
        created_at=created_at,
        updated_at=updated_at,
    )


def write(tx: Transaction, namespace: str, container: Container) -> None:
    """Insert the container, or write its mutable fields if it is there."""
    tx.execute(
        "INSERT INTO containers (namespace, id, image, runtime, runtime_options_any, spec_any,"
        " snapshotter, snapshot_key, sandbox, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (namespace, id) DO UPDATE SET image = excluded.image,"
        " spec_any = excluded.spec_any, snapshot_key = excluded.snapshot_key,"
        " updated_at = excluded.updated_at",
        (
            namespace,
            container.id,
            container.image,
            container.runtime,
            _serialized(container.runtime_options),
            _serialized(container.spec),
            container.snapshotter,
            container.snapshot_key,
            container.sandbox,
            container.created_at,
            container.updated_at,
        ),
    )
    labels.replace(tx, KIND, namespace, container.id, container.labels)
    tx.execute(
        "DELETE FROM container_extensions WHERE namespace = ? AND container = ?",
        (namespace, container.id),
    )
    tx.executemany(
        "INSERT INTO container_extensions VALUES (?, ?, ?, ?)",
        [
            (namespace, container.id, key, value.SerializeToString())
            for key, value in container.extensions.items()
        ],
    )


def delete(tx: Transaction, namespace: str, id: str) -> None:
    """Remove a container; raises NotFound."""
    gone = tx.execute("DELETE FROM containers WHERE namespace = ? AND id = ?", (namespace, id))
    if not gone.rowcount:
        raise NotFound(f'container "{id}"')
    labels.remove(tx, KIND, namespace, id)


def _serialized(value: Any | None) -> bytes | None:
    return None if value is None else value.SerializeToString()
