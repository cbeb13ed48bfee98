"""The records of one snapshotter's snapshots, whoever keeps the snapshots themselves."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, clock, fieldmask, filters, labels
from orlop.metadata.references import attach_to_lease, detach_from_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.snapshots import listing, records
from orlop.snapshots.model import Info, Kind, Usage
from orlop.snapshots.records import Record
from orlop.sys.mount import Mount
from orlop.tally import Timing
from orlop.wire import events_pb2

# On Prepare: the committed name that this snapshot is meant to become.
REF_LABEL = "containerd.io/snapshot.ref"

# All writers wait for the transaction: ancestors go along up to so many in all.
_ANCESTORS = 64


class SnapshotIds:
    """Numbers for new snapshots, of all snapshotters of a database; none is given twice."""

    def __init__(self, database: Database) -> None:
        with database.read() as tx:
            row = tx.one("SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'")
        self._next = row["seq"] + 1 if row else 1
        self._lock = threading.Lock()

    def skip(self, used: Iterable[int]) -> None:
        """Numbers that folders have although no row does."""
        with self._lock:
            self._next = max(itertools.chain((self._next,), (number + 1 for number in used)))

    def next(self) -> int:
        with self._lock:
            number, self._next = self._next, self._next + 1
        return number


class Shelf(ABC):
    """What all snapshotters have in common; see `Snapshotter` for the methods.

    A record comes after what it is of, and goes before it.
    """

    def __init__(
        self, database: Database, ids: SnapshotIds, name: str, publisher: Publisher
    ) -> None:
        self.name = name
        self._database = database
        self._ids = ids
        self._publisher = publisher
        self._kind = f"snapshot/{name}"
        self._resource = f"snapshots/{name}"
        self.operations = Timing("operation")

    def prepare(
        self,
        namespace: str,
        key: str,
        parent: str = "",
        labels: Mapping[str, str] | None = None,
        lease: str = "",
    ) -> list[Mount]:
        with self.operations.timed("prepare"):
            mounts = self._create(namespace, key, parent, Kind.ACTIVE, labels or {}, lease)
        self._publisher.publish(
            namespace,
            "/snapshot/prepare",
            events_pb2.SnapshotPrepare(key=key, parent=parent, snapshotter=self.name),
        )
        return mounts

    def view(
        self,
        namespace: str,
        key: str,
        parent: str = "",
        labels: Mapping[str, str] | None = None,
        lease: str = "",
    ) -> list[Mount]:
        with self.operations.timed("view"):
            return self._create(namespace, key, parent, Kind.VIEW, labels or {}, lease)

    @abstractmethod
    def _create(
        self,
        namespace: str,
        key: str,
        parent: str,
        kind: Kind,
        wanted: Mapping[str, str],
        lease: str,
    ) -> list[Mount]:
        """Make a snapshot and its record."""

    @abstractmethod
    def _delete(self, record: Record) -> None:
        """The record has gone, and what it was of can go, too."""

    @abstractmethod
    def undeleted(self) -> int:
        """How many have lost their records, and wait to be deleted or cannot be."""

    def _taken(self, tx: Transaction, namespace: str, key: str, target: str) -> list[str]:
        """Which of a key and a target name, "" for none, there is."""
        return [name for name in (key, target) if name and self._has(tx, namespace, name)]

    def _refuse(self, namespace: str, taken: Iterable[str], lease: str) -> None:
        """Raise AlreadyExists for what is `_taken`, unless it has just gone; the lease holds it."""
        for name in taken:
            with self._database.write() as tx:
                if stays := self._has(tx, namespace, name):
                    attach_to_lease(tx, namespace, lease, self._resource, name)
            if stays:
                raise AlreadyExists(f'snapshot "{name}"')

    def _has(self, tx: Transaction, namespace: str, key: str) -> bool:
        return records.exists(tx, self.name, namespace, key)

    @contextmanager
    def _held_if_taken(self, namespace: str, name: str, lease: str) -> Iterator[None]:
        """Whoever lost the race for a name holds the winner's snapshot all the same."""
        try:
            yield
        except AlreadyExists:
            with self._database.write() as tx:
                attach_to_lease(tx, namespace, lease, self._resource, name)
            raise

    def _insert(
        self,
        tx: Transaction,
        number: int,
        namespace: str,
        key: str,
        parent: str,
        kind: Kind,
        lease: str,
        usage: Usage | None = None,
    ) -> int | None:
        """The number of the parent, if there is one."""
        ensure_namespace(tx, namespace)
        above = self._parent(tx, namespace, parent)
        if self._has(tx, namespace, key):
            raise AlreadyExists(f'snapshot "{key}"')
        under = above.id if above else None
        records.insert(tx, number, self.name, namespace, key, under, kind, usage)
        attach_to_lease(tx, namespace, lease, self._resource, key)
        return under

    def _parent(self, tx: Transaction, namespace: str, parent: str) -> Record | None:
        if not parent:
            return None
        found = records.find(tx, self.name, namespace, parent)
        if found is None:
            raise NotFound(f'parent snapshot "{parent}"')
        if found.kind is not Kind.COMMITTED:
            raise InvalidArgument(f'parent snapshot "{parent}" is not committed')
        return found

    def _get(self, tx: Transaction, namespace: str, key: str) -> Record:
        found = records.find(tx, self.name, namespace, key)
        if found is None:
            raise NotFound(f'snapshot "{key}"')
        return found

    def _commit(
        self,
        tx: Transaction,
        namespace: str,
        name: str,
        key: str,
        wanted: Mapping[str, str],
        lease: str,
        parent: str,
        usage: Usage,
    ) -> None:
        record = self._get(tx, namespace, key)
        above = self._check_commit(tx, namespace, name, record, wanted, parent)
        records.commit(tx, record.id, name, above.id if above else record.parent, usage)
        labels.remove(tx, self._kind, namespace, key)
        labels.replace(tx, self._kind, namespace, name, wanted)
        detach_from_lease(tx, namespace, lease, self._resource, key)
        attach_to_lease(tx, namespace, lease, self._resource, name)

    def _check_commit(
        self,
        tx: Transaction,
        namespace: str,
        name: str,
        record: Record,
        wanted: Mapping[str, str],
        parent: str,
    ) -> Record | None:
        """Raise what is wrong with a commit; the record of `parent`, if one is given."""
        if not name:
            raise InvalidArgument(f'no name to commit snapshot "{record.key}" under')
        labels.validate(wanted)
        if self._has(tx, namespace, name):
            raise AlreadyExists(f'snapshot "{name}"')
        if record.kind is not Kind.ACTIVE:
            kind = record.kind.name.lower()
            raise FailedPrecondition(f'snapshot "{record.key}" is {kind}, not active')
        above = self._parent(tx, namespace, parent)
        if above and record.parent not in (None, above.id):
            raise InvalidArgument(f'snapshot "{record.key}" has another parent than "{parent}"')
        return above

    def _publish_commit(self, namespace: str, name: str, key: str) -> None:
        self._publisher.publish(
            namespace,
            "/snapshot/commit",
            events_pb2.SnapshotCommit(key=key, name=name, snapshotter=self.name),
        )

    def remove(self, namespace: str, key: str) -> None:
        with self.operations.timed("remove"):
            with self._database.write() as tx:
                record = self._get(tx, namespace, key)
                if records.has_children(tx, record.id):
                    raise FailedPrecondition(f'cannot remove snapshot with child: "{key}"')
                self._remove(tx, namespace, record)
            self._removed(namespace, record)

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Remove those that nothing keeps and that have no children any more; how many.

        Their ancestors that nothing keeps then go along, as far as one transaction may last: of the
        others the next one hears.
        """
        gone: list[tuple[str, Record]] = []
        with self._database.write() as tx:
            for namespace, first in keys:
                key = first
                while key:
                    record = records.find(tx, self.name, namespace, key)
                    if (
                        record is None
                        or records.has_children(tx, record.id)
                        or not dead(tx, namespace, key)
                    ):
                        break
                    many = len(gone) >= _ANCESTORS
                    key = "" if many else records.key_of(tx, record.parent)
                    self._remove(tx, namespace, record)
                    gone.append((namespace, record))
        for namespace, record in gone:
            self._removed(namespace, record)
        return len(gone)

    def _remove(self, tx: Transaction, namespace: str, record: Record) -> None:
        tx.execute("DELETE FROM snapshots WHERE id = ?", (record.id,))
        labels.remove(tx, self._kind, namespace, record.key)
        tx.execute(
            "DELETE FROM lease_resources WHERE namespace = ? AND type = ? AND id = ?",
            (namespace, self._resource, record.key),
        )

    def _removed(self, namespace: str, record: Record) -> None:
        self._delete(record)
        self._publisher.publish(
            namespace,
            "/snapshot/remove",
            events_pb2.SnapshotRemove(key=record.key, snapshotter=self.name),
        )

    def stat(self, namespace: str, key: str) -> Info:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            parent = records.key_of(tx, record.parent)
            return record.info(parent, labels.get(tx, self._kind, namespace, key))

    def update(self, namespace: str, info: Info, mask: FieldMask) -> Info:
        changes = fieldmask.paths(mask, fields=("labels",), maps=("labels",))
        labels.validate(info.labels)
        with self._database.write() as tx:
            self._get(tx, namespace, info.name)
            before = labels.get(tx, self._kind, namespace, info.name)
            after = changes.merge("labels", before, info.labels)
            labels.replace(tx, self._kind, namespace, info.name, after)
            tx.execute(
                "UPDATE snapshots SET updated_at = ? "
                "WHERE snapshotter = ? AND namespace = ? AND key = ?",
                (clock.now(), self.name, namespace, info.name),
            )
        return self.stat(namespace, info.name)

    def list(self, namespace: str, filters: Iterable[str] = ()) -> list[Info]:
        wanted = _parse(filters)
        with self._database.read() as tx:
            rows = records.all_of(tx, self.name, namespace)
            found = labels.get_all(tx, self._kind, namespace)
        keys = {record.id: record.key for record in rows}
        infos = (
            record.info(keys.get(record.parent or 0, ""), found.get(record.key, {}))
            for record in rows
        )
        return [info for info in infos if wanted.matches(_lookup(info))]

    def listing(self, namespace: str) -> Sequence[bytes]:
        with self._database.read() as tx:
            return listing.snapshots(tx, self._kind, self.name, namespace)


def _parse(wanted: Iterable[str]) -> filters.Filter:
    return filters.parse(wanted)


def _lookup(info: Info) -> filters.Lookup:
    fields = {"name": info.name, "parent": info.parent, "kind": info.kind.name.lower()}
    return filters.record(fields, labels=info.labels)
