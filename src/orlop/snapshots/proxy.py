"""A proxy snapshotter: the records are here, the snapshots with another service.

There they are called NAMESPACE/NUMBER/KEY, as containerd calls them: keys of a namespace never meet
those of another, and none is used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
    Unknown,
)
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, labels
from orlop.snapshots import proxied
from orlop.snapshots.model import Info, Kind, Usage
from orlop.snapshots.proxied import Doomed
from orlop.snapshots.records import Record
from orlop.snapshots.remote import RemoteSnapshotter
from orlop.snapshots.shelf import REF_LABEL, Shelf, SnapshotIds
from orlop.snapshots.snapshotter import Extraction
from orlop.sys.mount import Mount

_INHERITED = "containerd.io/snapshot/"


class ProxySnapshotter(Shelf):
    """A `Snapshotter` (which see for the methods) by another service, `remote`."""

    rebase = False
    remote = True

    def __init__(
        self,
        database: Database,
        ids: SnapshotIds,
        remote: RemoteSnapshotter,
        publisher: Publisher,
    ) -> None:
        super().__init__(database, ids, remote.name, publisher)
        self._remote = remote
        with database.read() as tx:
            ids.skip(proxied.numbers(tx))
        self._doomed = Doomed(database, remote)

    def close(self) -> None:
        """Stop removing; the next daemon goes on with that."""
        self._doomed.close()

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
        target = wanted.get(REF_LABEL, "")
        with self._database.read() as tx:
            taken = self._taken(tx, namespace, key, target)
            above = None if taken else self._parent(tx, namespace, parent)
            below = self._name(tx, above) if above else ""
        if taken:
            self._refuse(namespace, taken, lease)  # unless it has just gone
            return self._create(namespace, key, parent, kind, wanted, lease)
        number = self._ids.next()
        create = self._remote.view if kind is Kind.VIEW else self._remote.prepare
        name = _name(namespace, number, key)
        # By the contract, what the service commits for a target has the target's name.
        with self._coming(namespace, *filter(None, (name, target))) as new:
            try:
                mounts = create(namespace, name, below, inherited(wanted))
            except AlreadyExists as error:
                if not target:
                    raise Unknown(f'snapshotter "{self.name}": {error.message}') from error
                self._adopt(namespace, target, parent, below, wanted, lease)
                raise AlreadyExists(f'snapshot "{target}"') from None
            with self._held_if_taken(namespace, key, lease), self._database.write() as tx:
                now = self._parent(tx, namespace, parent)
                if (now.id if now else None) != (above.id if above else None):
                    raise NotFound(f'parent snapshot "{parent}"')  # another has its name now
                self._insert(tx, number, namespace, key, parent, kind, lease)
                labels.replace(tx, self._kind, namespace, key, wanted)
                proxied.own(tx, self.name, namespace, name, number)
                if target in new:  # the service had nothing for it
                    proxied.withdraw(tx, self.name, namespace, target)
        return mounts

    def _adopt(
        self,
        namespace: str,
        target: str,
        parent: str,
        below: str,
        wanted: Mapping[str, str],
        lease: str,
    ) -> None:
        """Record the snapshot that the service has committed for a target by itself.

        Raises NotFound if it has not.
        """
        found = self._find(namespace, target, below)
        with self._coming(namespace, found.name):
            usage = self._remote.usage(namespace, found.name)  # unless it was just being removed
            number = self._ids.next()
            with self._held_if_taken(namespace, target, lease), self._database.write() as tx:
                self._insert(tx, number, namespace, target, parent, Kind.COMMITTED, lease, usage)
                labels.replace(tx, self._kind, namespace, target, {**found.labels, **wanted})
                proxied.own(tx, self.name, namespace, found.name, number)

    def _find(self, namespace: str, target: str, below: str) -> Info:
        # Not every service heeds filters.
        for info in self._remote.list(namespace, f'labels."{REF_LABEL}"=={target}'):
            committed = info.kind == int(Kind.COMMITTED)
            if committed and info.labels.get(REF_LABEL) == target and info.parent == below:
                return Info(info.name, below, Kind.COMMITTED, 0, 0, dict(info.labels))
        raise NotFound(f'snapshot "{target}" in snapshotter "{self.name}", which says it has it')

    @contextmanager
    def _coming(self, namespace: str, *names: str) -> Iterator[list[str]]:
        """Names that something there may come to have; what gets no record here is removed.

        Gives those that nothing has had so far.
        """
        for name in names:
            self._doomed.spare(name)
        try:
            with self._database.write() as tx:
                new = [name for name in names if proxied.announce(tx, self.name, namespace, name)]
            yield new
        finally:
            for name in names:
                self._doomed.release(name)

    def _name(self, tx: Transaction, record: Record) -> str:
        name = proxied.name_of(tx, record.id)
        if name is None:
            raise NotFound(f'snapshot "{record.key}" in snapshotter "{self.name}"')
        return name

    def mounts(self, namespace: str, key: str) -> list[Mount]:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            name = self._name(tx, record)
        if record.kind is Kind.COMMITTED:
            raise FailedPrecondition(f'snapshot "{key}" is committed and has no mounts')
        return self._remote.mounts(namespace, name)

    def commit(
        self,
        namespace: str,
        name: str,
        key: str,
        labels: Mapping[str, str] | None = None,
        lease: str = "",
        parent: str = "",
    ) -> None:
        wanted = labels or {}
        with self._held_if_taken(namespace, name, lease), self._database.read() as tx:
            record = self._get(tx, namespace, key)
            self._check_commit(tx, namespace, name, record, wanted, parent)
            before = self._name(tx, record)
            above = self._parent(tx, namespace, parent)
            below = self._name(tx, above) if above else ""
        usage = self._remote.usage(namespace, before)
        after = _name(namespace, self._ids.next(), name)
        with self.operations.timed("commit"), self._coming(namespace, after):
            self._remote.commit(namespace, after, before, below, inherited(wanted))
            with self._held_if_taken(namespace, name, lease), self._database.write() as tx:
                self._commit(tx, namespace, name, key, wanted, lease, parent, usage)
                proxied.forget(tx, self.name, namespace, before)
                proxied.own(tx, self.name, namespace, after, record.id)
        self._publish_commit(namespace, name, key)

    def update(self, namespace: str, info: Info, mask: FieldMask) -> Info:
        after = super().update(namespace, info, mask)
        with self._database.read() as tx:
            name = self._name(tx, self._get(tx, namespace, info.name))
        self._remote.update(namespace, name, inherited(info.labels), mask)
        return after

    def usage(self, namespace: str, key: str) -> Usage:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            name = self._name(tx, record)
        if record.kind is Kind.COMMITTED:
            return Usage(record.size, record.inodes)
        return self._remote.usage(namespace, name)

    def undeleted(self) -> int:
        return len(self._doomed.waiting())

    def _delete(self, record: Record) -> None:
        self._doomed.wake()

    def sync(self) -> None:
        """Nothing: it is the service's business, which is told of nothing before the commit."""

    def cleanup(self) -> None:
        """Have the service clean up, for all namespaces that have something there."""
        with self._database.read() as tx:
            namespaces = proxied.namespaces(tx, self.name)
        for namespace in namespaces:
            self._remote.cleanup(namespace)

    def extraction(self, namespace: str) -> Extraction:
        raise Unimplemented(f'snapshotter "{self.name}" unpacks layers on their parents only')


def inherited(wanted: Mapping[str, str]) -> dict[str, str]:
    """The labels that are a snapshotter's business; the others stay with the records."""
    return {
        key: value
        for key, value in wanted.items()
        if key == REF_LABEL or key.startswith(_INHERITED)
    }


def _name(namespace: str, number: int, key: str) -> str:
    return f"{namespace}/{number}/{key}"
