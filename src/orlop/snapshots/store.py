"""The snapshotter over a driver: records in the database, folders by the driver.

A folder is made before its row is committed and taken away after the row is gone, so a crash can
only leave a folder without a row; those are reaped when the daemon starts.
"""

from __future__ import annotations

import itertools
import logging
import queue
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, clock, fieldmask, filters, labels
from orlop.metadata.references import attach_to_lease, detach_from_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.snapshots import records
from orlop.snapshots.driver import Driver
from orlop.snapshots.model import Info, Kind, Usage
from orlop.snapshots.records import Record
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import Mount
from orlop.wire import events_pb2

# On Prepare: the committed name that this snapshot is meant to become.
REF_LABEL = "containerd.io/snapshot.ref"
UIDS_LABEL = "containerd.io/snapshot/uidmapping"
GIDS_LABEL = "containerd.io/snapshot/gidmapping"
"""On a snapshot whose files are shown as in a user namespace: CONTAINER:HOST:SIZE."""

# All writers wait for the transaction: ancestors go along up to so many in all.
_ANCESTORS = 64

_log = logging.getLogger(__name__)


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


class SnapshotStore:
    """A `Snapshotter` (which see for the methods) named `name`."""

    def __init__(
        self,
        database: Database,
        ids: SnapshotIds,
        name: str,
        driver: Driver,
        publisher: Publisher,
    ) -> None:
        self.name = name
        self.driver = driver
        self.rebase = driver.rebase
        self._database = database
        self._ids = ids
        self._publisher = publisher
        self._kind = f"snapshot/{name}"
        self._resource = f"snapshots/{name}"
        ids.skip(driver.numbers())
        self._doomed: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._deleter = threading.Thread(
            target=self._delete_doomed, name=f"snapshots-{name}", daemon=True
        )
        self._deleter.start()

    def close(self) -> None:
        """Finish the deletions that were begun."""
        self._doomed.put(None)
        self._deleter.join()
        self.driver.close()

    def prepare(
        self,
        namespace: str,
        key: str,
        parent: str = "",
        labels: Mapping[str, str] | None = None,
        lease: str = "",
    ) -> list[Mount]:
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
        return self._create(namespace, key, parent, Kind.VIEW, labels or {}, lease)

    def _create(
        self,
        namespace: str,
        key: str,
        parent: str,
        kind: Kind,
        wanted: Mapping[str, str],
        lease: str,
    ) -> list[Mount]:
        if not key:
            raise InvalidArgument("snapshot key is empty")
        labels.validate(wanted)
        self._refuse_existing(namespace, key, wanted.get(REF_LABEL, ""), lease)
        with self._database.read() as tx:
            above = self._parent(tx, namespace, parent)
            chain = records.chain(tx, above.id) if above else []
        number, read_only = self._ids.next(), kind is Kind.VIEW
        mapping = self._mapping(key, wanted)
        try:
            self.driver.create(number, chain, read_only=read_only)
            if mapping and not read_only:
                self.driver.give_to(number, mapping)
            with self._held_if_taken(namespace, key, lease), self._database.write() as tx:
                now = self._parent(tx, namespace, parent)
                if (now.id if now else None) != (above.id if above else None):
                    raise NotFound(f'parent snapshot "{parent}"')  # another has its name now
                self._insert(tx, number, namespace, key, parent, kind, lease)
                labels.replace(tx, self._kind, namespace, key, wanted)
        except BaseException:
            self.driver.discard(number)
            raise
        return _mapped(self.driver.mounts(number, chain, read_only=read_only), mapping)

    def _mapping(self, key: str, wanted: Mapping[str, str]) -> IdMapping | None:
        """How a snapshot's labels map uids and gids; None if they do not.

        Raises InvalidArgument for labels that say nothing of the kind, FailedPrecondition where
        that is not possible.
        """
        uids, gids = wanted.get(UIDS_LABEL, ""), wanted.get(GIDS_LABEL, "")
        if not uids and not gids:
            return None
        if not self.driver.maps_ids:
            raise FailedPrecondition(
                f'snapshot "{key}": snapshotter "{self.name}" cannot map ids on this filesystem'
            )
        return IdMapping(uids, gids)

    def _refuse_existing(self, namespace: str, key: str, target: str, lease: str) -> None:
        """Raise AlreadyExists for a key, or target name, that is taken; the lease holds it then."""
        for name in (key, target):
            with self._database.read() as tx:
                taken = name and records.find(tx, self.name, namespace, name) is not None
            if not taken:
                continue
            with self._database.write() as tx:  # unless it has just gone
                if taken := records.find(tx, self.name, namespace, name) is not None:
                    attach_to_lease(tx, namespace, lease, self._resource, name)
            if taken:
                raise AlreadyExists(f'snapshot "{name}"')

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
    ) -> None:
        ensure_namespace(tx, namespace)
        above = self._parent(tx, namespace, parent)
        if records.find(tx, self.name, namespace, key) is not None:
            raise AlreadyExists(f'snapshot "{key}"')
        records.insert(
            tx, number, self.name, namespace, key, above.id if above else None, kind, usage
        )
        attach_to_lease(tx, namespace, lease, self._resource, key)

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

    def mounts(self, namespace: str, key: str) -> list[Mount]:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            chain = records.chain(tx, record.parent) if record.parent else []
            mapping = self._mapping(key, labels.get(tx, self._kind, namespace, key))
        if record.kind is Kind.COMMITTED:
            raise FailedPrecondition(f'snapshot "{key}" is committed and has no mounts')
        mounts = self.driver.mounts(record.id, chain, read_only=record.kind is Kind.VIEW)
        return _mapped(mounts, mapping)

    def commit(
        self,
        namespace: str,
        name: str,
        key: str,
        labels: Mapping[str, str] | None = None,
        lease: str = "",
        parent: str = "",
    ) -> None:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            chain = records.chain(tx, record.parent) if record.parent else []
        usage = Usage(0, 0)
        if record.kind is Kind.ACTIVE:
            usage = self.driver.seal(record.id, chain)
        with self._held_if_taken(namespace, name, lease), self._database.write() as tx:
            self._commit(tx, namespace, name, key, labels or {}, lease, parent, usage)
        self.driver.settle(record.id)
        self._publish_commit(namespace, name, key)

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
        if not name:
            raise InvalidArgument(f'no name to commit snapshot "{key}" under')
        labels.validate(wanted)
        record = self._get(tx, namespace, key)
        if records.find(tx, self.name, namespace, name) is not None:
            raise AlreadyExists(f'snapshot "{name}"')
        if record.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f'snapshot "{key}" is {record.kind.name.lower()}, not active')
        above = self._parent(tx, namespace, parent)
        if above and record.parent not in (None, above.id):
            raise InvalidArgument(f'snapshot "{key}" has another parent than "{parent}"')
        records.commit(tx, record.id, name, above.id if above else record.parent, usage)
        labels.remove(tx, self._kind, namespace, key)
        labels.replace(tx, self._kind, namespace, name, wanted)
        detach_from_lease(tx, namespace, lease, self._resource, key)
        attach_to_lease(tx, namespace, lease, self._resource, name)

    def _publish_commit(self, namespace: str, name: str, key: str) -> None:
        self._publisher.publish(
            namespace,
            "/snapshot/commit",
            events_pb2.SnapshotCommit(key=key, name=name, snapshotter=self.name),
        )

    def remove(self, namespace: str, key: str) -> None:
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
        self._delete_later(record.id)
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

    def usage(self, namespace: str, key: str) -> Usage:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
        if record.kind is Kind.COMMITTED:
            return Usage(record.size, record.inodes)
        return self.driver.usage(record.id)

    def folder(self, namespace: str, key: str) -> Path:
        """Where the files are that a snapshot itself has; NotFound without it."""
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
        return self.driver.content(record.id)

    def cleanup(self) -> None:
        """Delete folders without a row. Only safe while nothing is being prepared: at start."""
        with self._database.read() as tx:
            owned = {row["id"] for row in tx.all("SELECT id FROM snapshots")}
            committed = records.committed(tx, self.name) if self.driver.images else ()
        for number in committed:
            self.driver.settle(number)  # a crash may have come between
        for number in self.driver.numbers() - owned:
            _log.info("snapshotter=%s reaping orphan snapshot folder %d", self.name, number)
            self._delete_later(number)
        for path in self.driver.trashed():
            self._doomed.put(path)

    def extraction(self, namespace: str) -> FolderExtraction:
        if not self.rebase:
            raise Unimplemented(f'snapshotter "{self.name}" unpacks layers on their parents only')
        number = self._ids.next()
        self.driver.create(number, (), read_only=False)
        return FolderExtraction(self, namespace, number)

    def adopt(
        self,
        namespace: str,
        number: int,
        name: str,
        parent: str,
        wanted: Mapping[str, str],
        lease: str,
    ) -> None:
        """Make the folder `number` a committed snapshot (for `FolderExtraction`)."""
        labels.validate(wanted)
        usage = self.driver.usage(number)
        with self._held_if_taken(namespace, name, lease), self._database.write() as tx:
            self._insert(tx, number, namespace, name, parent, Kind.COMMITTED, lease, usage)
            labels.replace(tx, self._kind, namespace, name, wanted)
        self.driver.settle(number)
        self._publish_commit(namespace, name, f"extract {name}")

    def _delete_later(self, number: int) -> None:
        path = self.driver.trash(number)
        if path is not None:
            self._doomed.put(path)

    def _delete_doomed(self) -> None:
        while (path := self._doomed.get()) is not None:
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                _log.warning('snapshotter=%s cannot delete "%s"', self.name, path)


class FolderExtraction:
    """An `Extraction` in a driver's folder."""

    def __init__(self, store: SnapshotStore, namespace: str, number: int) -> None:
        self._store = store
        self._namespace = namespace
        self._number = number
        self.image = store.driver.images
        driver = store.driver
        self.path = driver.folder(number) if self.image else driver.content(number)

    def commit(
        self,
        name: str,
        parent: str,
        labels: Mapping[str, str] | None = None,
        lease: str = "",
    ) -> None:
        try:
            self._store.adopt(self._namespace, self._number, name, parent, labels or {}, lease)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        self._store.driver.discard(self._number)


def _mapped(mounts: list[Mount], mapping: IdMapping | None) -> list[Mount]:
    """With the options that map the ids of what the snapshot did not write itself."""
    if mapping is None:
        return mounts
    return [
        each._replace(options=(*each.options, *mapping.options))
        if each.type == "overlay" or "ro" in each.options
        else each
        for each in mounts
    ]


def _parse(wanted: Iterable[str]) -> filters.Filter:
    return filters.parse(wanted)


def _lookup(info: Info) -> filters.Lookup:
    fields = {"name": info.name, "parent": info.parent, "kind": info.kind.name.lower()}
    return filters.record(fields, labels=info.labels)
