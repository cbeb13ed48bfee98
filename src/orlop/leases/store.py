"""Lease records and what they hold."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Mapping

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from orlop.leases.model import Lease, Resource
from orlop.metadata import Database, Transaction, clock, filters, labels
from orlop.metadata.references import attach_to_lease, detach_from_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.oci.digest import Digest

_KIND = "lease"
_PLAIN_TYPES = ("content", "ingests", "images", "mounts", "networks", "netns")
_SNAPSHOTS = "snapshots"


class LeaseStore:
    """The leases of every namespace."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(
        self,
        namespace: str,
        id: str = "",
        own_labels: Mapping[str, str] | None = None,
        resources: Collection[Resource] = (),
    ) -> Lease:
        """Add a lease, under an invented id if none is given, that keeps resources from the start.

        Raises AlreadyExists, and of the resources what `add_resource` does. The id is free text,
        not an identifier: clients choose long ones.
        """
        for resource in resources:
            _validate(resource)
        pairs = {key: value for key, value in (own_labels or {}).items() if value}
        lease = Lease(id or _invent_id(), pairs, clock.now())
        with self._db.write() as tx:
            if _exists(tx, namespace, lease.id):
                raise AlreadyExists(f'lease "{lease.id}"')
            ensure_namespace(tx, namespace)
            row = (namespace, lease.id, lease.created_at)
            tx.execute("INSERT INTO leases (namespace, id, created_at) VALUES (?, ?, ?)", row)
            labels.replace(tx, _KIND, namespace, lease.id, pairs)
            for resource in resources:
                attach_to_lease(tx, namespace, lease.id, resource.type, resource.id)
        return lease

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Lease]:
        """The leases that any of the filters `wanted` match, by id.

        Filters see `id` and `labels`.
        """
        chosen = filters.parse(wanted)
        with self._db.read() as tx:
            rows = tx.all(
                "SELECT id, created_at FROM leases WHERE namespace = ? ORDER BY id", (namespace,)
            )
            all_labels = labels.get_all(tx, _KIND, namespace)
        leases = (Lease(key, all_labels.get(key, {}), created) for key, created in rows)
        return [
            lease
            for lease in leases
            if chosen.matches(filters.record({"id": lease.id}, labels=lease.labels))
        ]

    def relabel(self, namespace: str, id: str, own_labels: Mapping[str, str]) -> None:
        """Give a lease other labels instead of those it has; raises NotFound."""
        with self._db.write() as tx:
            _require(tx, namespace, id)
            labels.replace(tx, _KIND, namespace, id, own_labels)

    def delete(self, namespace: str, id: str) -> None:
        """Remove a lease; what only it kept may now be collected. Raises NotFound."""
        with self._db.write() as tx:
            _require(tx, namespace, id)
            _remove(tx, namespace, id)

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Remove the leases that have ended; how many."""
        removed = 0
        with self._db.write() as tx:
            for namespace, lease in keys:
                if _exists(tx, namespace, lease) and dead(tx, namespace, lease):
                    _remove(tx, namespace, lease)
                    removed += 1
        return removed

    def add_resource(self, namespace: str, id: str, resource: Resource) -> None:
        """Keep a resource, whether it exists yet or not.

        Raises NotFound for an unknown lease, InvalidArgument for a malformed type or a bad digest,
        Unimplemented for an unknown type.
        """
        _validate(resource)
        with self._db.write() as tx:
            _require(tx, namespace, id)
            attach_to_lease(tx, namespace, id, resource.type, resource.id)

    def delete_resource(self, namespace: str, id: str, resource: Resource) -> None:
        """Keep a resource no longer; one that was not kept is no error.

        Raises as `add_resource` does.
        """
        _validate(resource)
        with self._db.write() as tx:
            _require(tx, namespace, id)
            detach_from_lease(tx, namespace, id, resource.type, resource.id)

    def keeps(self, namespace: str, id: str, resource: Resource) -> bool:
        """Whether a lease keeps a resource; a lease that is not there keeps none."""
        with self._db.read() as tx:
            row = tx.one(
                "SELECT 1 FROM lease_resources"
                " WHERE namespace = ? AND lease = ? AND type = ? AND id = ?",
                (namespace, id, resource.type, resource.id),
            )
        return row is not None

    def resources(self, namespace: str, id: str) -> tuple[Resource, ...]:
        """What a lease keeps, by type and id; raises NotFound."""
        with self._db.read() as tx:
            _require(tx, namespace, id)
            rows = tx.all(
                "SELECT type, id FROM lease_resources WHERE namespace = ? AND lease = ?"
                " ORDER BY type, id",
                (namespace, id),
            )
        return tuple(Resource(row["type"], row["id"]) for row in rows)


def _exists(tx: Transaction, namespace: str, id: str) -> bool:
    key = (namespace, id)
    return tx.one("SELECT 1 FROM leases WHERE namespace = ? AND id = ?", key) is not None


def _remove(tx: Transaction, namespace: str, id: str) -> None:
    tx.execute("DELETE FROM leases WHERE namespace = ? AND id = ?", (namespace, id))
    labels.remove(tx, _KIND, namespace, id)


def _require(tx: Transaction, namespace: str, id: str) -> None:
    if not _exists(tx, namespace, id):
        raise NotFound(f'lease "{id}"')


def _validate(resource: Resource) -> None:
    kind, *parts = resource.type.split("/")
    if kind not in (*_PLAIN_TYPES, _SNAPSHOTS):
        raise Unimplemented(f'lease resource type "{resource.type}"')
    well_formed = len(parts) == 1 and parts[0] if kind == _SNAPSHOTS else not parts
    if not well_formed:
        raise InvalidArgument(f'lease resource type "{resource.type}"')
    if kind == "content":
        Digest.parse(resource.id)


def _invent_id() -> str:
    return f"{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)}"
