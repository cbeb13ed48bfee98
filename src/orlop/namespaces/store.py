"""Namespace records."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, fieldmask, labels
from orlop.metadata.references import ensure_namespace
from orlop.namespaces.model import Namespace
from orlop.rpc.context import validate_identifier
from orlop.wire.events_pb2 import NamespaceCreate, NamespaceDelete, NamespaceUpdate

_KIND = "namespace"
_log = logging.getLogger(__name__)

# What keeps a namespace from being deleted; all else in it goes with it.
_CONTENTS = {
    "images": "SELECT 1 FROM images WHERE namespace = ? LIMIT 1",
    "blobs": "SELECT 1 FROM content WHERE namespace = ? LIMIT 1",
    "containers": "SELECT 1 FROM containers WHERE namespace = ? LIMIT 1",
    "sandboxes": "SELECT 1 FROM sandboxes WHERE namespace = ? LIMIT 1",
    "mounts": "SELECT 1 FROM mounts WHERE namespace = ? LIMIT 1",
}
_SNAPSHOTTERS = "SELECT DISTINCT snapshotter FROM snapshots WHERE namespace = ? ORDER BY 1"


class NamespaceStore:
    """The namespaces of a daemon; each change is announced in the namespace that it is about.

    `drop_ingest` takes the folder of an ingest that has no record any more.
    """

    def __init__(
        self, db: Database, publisher: Publisher, drop_ingest: Callable[[str], object]
    ) -> None:
        self._db = db
        self._publisher = publisher
        self._drop_ingest = drop_ingest

    def labels(self, name: str) -> dict[str, str]:
        """The labels of a namespace; none for one that does not exist."""
        with self._db.read() as tx:
            return labels.get(tx, _KIND, name, name)

    def list(self) -> list[Namespace]:
        """All namespaces, by name."""
        with self._db.read() as tx:
            names = [row["name"] for row in tx.all("SELECT name FROM namespaces ORDER BY name")]
            rows = tx.all("SELECT owner, key, value FROM labels WHERE kind = ?", (_KIND,))
        pairs: dict[str, dict[str, str]] = {name: {} for name in names}
        for name, key, value in rows:
            pairs[name][key] = value
        return [Namespace(name, pairs[name]) for name in names]

    def create(self, namespace: Namespace) -> None:
        """Add a namespace; raises InvalidArgument for a bad name or label, AlreadyExists."""
        name = namespace.name
        validate_identifier("namespace", name)
        labels.validate(namespace.labels)
        with self._db.write() as tx:
            if _exists(tx, name):
                raise AlreadyExists(f'namespace "{name}"')
            ensure_namespace(tx, name)
            labels.replace(tx, _KIND, name, name, namespace.labels)
            event = NamespaceCreate(name=name, labels=namespace.labels)
            tx.after_commit(partial(self._publisher.publish, name, "/namespaces/create", event))

    def update(self, namespace: Namespace, mask: FieldMask | None = None) -> Namespace:
        """Set labels, all of them or those that `mask` names (`labels.<key>` only).

        A namespace that does not exist is created. Raises InvalidArgument.
        """
        name = namespace.name
        validate_identifier("namespace", name)
        named = fieldmask.paths(mask or FieldMask(), fields=(), maps=("labels",))
        with self._db.write() as tx:
            ensure_namespace(tx, name)
            old = labels.get(tx, _KIND, name, name)
            updated = Namespace(name, named.merge("labels", old, namespace.labels))
            labels.validate(updated.labels)
            labels.replace(tx, _KIND, name, name, updated.labels)
            event = NamespaceUpdate(name=name, labels=updated.labels)
            tx.after_commit(partial(self._publisher.publish, name, "/namespaces/update", event))
        return updated

    def delete(self, name: str) -> None:
        """Remove a namespace, with the leases and unfinished ingests in it.

        Raises NotFound, and FailedPrecondition, telling what is left, unless it holds no images,
        blobs, containers, sandboxes, mounts and snapshots.
        """
        with self._db.write() as tx:
            if not _exists(tx, name):
                raise NotFound(f'namespace "{name}"')
            if left := _contents(tx, name):
                raise FailedPrecondition(
                    f'namespace "{name}" must be empty, but it still has {", ".join(left)}'
                )
            ingests = tx.all("SELECT directory FROM ingests WHERE namespace = ?", (name,))
            for table in ("leases", "ingests", "labels"):
                tx.execute(f"DELETE FROM {table} WHERE namespace = ?", (name,))
            tx.execute("DELETE FROM namespaces WHERE name = ?", (name,))
            event = NamespaceDelete(name=name)
            tx.after_commit(partial(self._publisher.publish, name, "/namespaces/delete", event))
            for row in ingests:
                tx.after_commit(partial(self._drop, row["directory"]))

    def _drop(self, directory: str) -> None:
        try:
            self._drop_ingest(directory)
        except (OrlopError, OSError) as error:
            _log.warning('ingest "%s" stays until the next start: %s', directory, error)


def _exists(tx: Transaction, name: str) -> bool:
    return tx.one("SELECT 1 FROM namespaces WHERE name = ?", (name,)) is not None


def _contents(tx: Transaction, name: str) -> list[str]:
    left = [kind for kind, query in _CONTENTS.items() if tx.one(query, (name,))]
    snapshotters = [row["snapshotter"] for row in tx.all(_SNAPSHOTTERS, (name,))]
    return left + [f'snapshots on "{snapshotter}"' for snapshotter in snapshotters]
