"""The snapshotter over a driver: records in the database, folders by the driver.

A folder is made before its row is committed and taken away after the row is gone, so a crash can
only leave a folder without a row; those are reaped when the daemon starts.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
    Unimplemented,
)
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, labels
from orlop.snapshots import quota, records, volatile
from orlop.snapshots.deletion import Deletion
from orlop.snapshots.driver import Driver
from orlop.snapshots.model import Kind, Usage
from orlop.snapshots.quota import UNLIMITED, Limits
from orlop.snapshots.records import Record
from orlop.snapshots.remapping import ChangeOwners, Remapper
from orlop.snapshots.shelf import REF_LABEL, Shelf, SnapshotIds
from orlop.sys.fs import sync_filesystem
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import Mount
from orlop.turns import Turns

UIDS_LABEL = "containerd.io/snapshot/uidmapping"
GIDS_LABEL = "containerd.io/snapshot/gidmapping"
"""On a snapshot whose files are shown as in a user namespace: CONTAINER:HOST:SIZE."""

# How keys begin under which containerd's clients unpack layers.
_UNPACKING = "extract-"

_UNWRITTEN = 300 * 1_000_000_000
"""For how many nanoseconds a filesystem may have a new folder in memory only, and many more."""

_log = logging.getLogger(__name__)


class Defaults(NamedTuple):
    """What holds for containers' snapshots where labels do not say."""

    limits: Limits = UNLIMITED
    volatile: bool = False


NO_DEFAULTS = Defaults()


class SnapshotStore(Shelf):
    """A `Snapshotter` (which see for the methods) named `name`."""

    remote = False

    def __init__(
        self,
        database: Database,
        ids: SnapshotIds,
        name: str,
        driver: Driver,
        publisher: Publisher,
        defaults: Defaults = NO_DEFAULTS,
        change_owners: ChangeOwners | None = None,
        *,
        durable: bool = True,
    ) -> None:
        super().__init__(database, ids, name, publisher)
        self.driver = driver
        self._defaults = defaults
        self._durable = durable
        self._remapper = Remapper(self, change_owners) if change_owners else None
        self.rebase = driver.rebase
        ids.skip(driver.numbers())
        self._committing = Turns()
        self._deletion = Deletion(name, driver)

    def stop(self) -> None:
        """The daemon is about to end: break off what may take long."""
        self.driver.stop()

    def close(self) -> None:
        """Finish the deletions that were begun."""
        self._deletion.close()
        self.driver.close()

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
        with self._database.read() as tx:
            taken = self._taken(tx, namespace, key, wanted.get(REF_LABEL, ""))
            above, chain = (None, []) if taken else self._ancestors(tx, namespace, parent)
        if taken:
            self._refuse(namespace, taken, lease)  # unless it has just gone
            return self._create(namespace, key, parent, kind, wanted, lease)
        mapping = _mapping(wanted)
        if mapping and above and not (self.driver.maps_ids or self._is_copy(above, mapping)):
            parent = self._remapped(namespace, key, parent, mapping, lease)
            with self._database.read() as tx:
                above, chain = self._ancestors(tx, namespace, parent)
        number = self._ids.next()
        self._furnish(number, chain, kind, key, wanted)
        try:
            with self._held_if_taken(namespace, key, lease), self._database.write() as tx:
                under = self._insert(tx, number, namespace, key, parent, kind, lease)
                if under != (above.id if above else None):
                    raise NotFound(f'parent snapshot "{parent}"')  # another has its name now
                labels.replace(tx, self._kind, namespace, key, wanted)
        except BaseException:
            self.driver.discard(number)
            raise
        mounts = self.driver.mounts(number, chain, read_only=kind is Kind.VIEW)
        return self._mapped(mounts, mapping, above)

    def _furnish(
        self, number: int, chain: Sequence[int], kind: Kind, key: str, wanted: Mapping[str, str]
    ) -> None:
        """Make a folder as its key and labels want it, whole or not at all."""
        read_only = kind is Kind.VIEW
        defaults = self._defaults_for(kind, key, wanted)
        limits = UNLIMITED if read_only else quota.wanted(wanted, defaults.limits)
        is_volatile = volatile.wanted(wanted, defaults.volatile) and not read_only
        mapping = _mapping(wanted)
        self._make(number, chain, read_only=read_only, limits=limits)
        try:
            with self._in_room():
                if mapping and not read_only:
                    self.driver.give_to(number, mapping)
                if is_volatile and chain:  # without, there is no overlay
                    self.driver.make_volatile(number)
        except BaseException:
            self.driver.discard(number)
            raise

    def _defaults_for(self, kind: Kind, key: str, wanted: Mapping[str, str]) -> Defaults:
        """An image's layer has none: it is as large as it is, and stays."""
        unpacking = key.rpartition("/")[2].startswith(_UNPACKING)  # a guest's has a way before it
        layer = kind is Kind.VIEW or REF_LABEL in wanted or unpacking
        return NO_DEFAULTS if layer else self._defaults

    def _is_volatile(self, record: Record, wanted: Mapping[str, str]) -> bool:
        defaults = self._defaults_for(record.kind, record.key, wanted)
        return record.kind is Kind.ACTIVE and volatile.wanted(wanted, defaults.volatile)

    def _ancestors(
        self, tx: Transaction, namespace: str, parent: str
    ) -> tuple[Record | None, list[int]]:
        """A parent's record, if it has a name, and the numbers of its chain."""
        above = self._parent(tx, namespace, parent)
        return above, records.chain(tx, above.id) if above else []

    def _is_copy(self, above: Record, mapping: IdMapping) -> bool:
        """Whether a snapshot's files have the mapped owners already, by us or by a client."""
        if _is_named_a_copy(above, mapping):
            return True
        try:
            info = self.driver.content(above.id).stat()
        except FileNotFoundError:
            return False
        return (info.st_uid, info.st_gid) == (mapping.uid(0), mapping.gid(0)) != (0, 0)

    def _remapped(
        self, namespace: str, key: str, parent: str, mapping: IdMapping, lease: str
    ) -> str:
        if self._remapper is None:
            raise FailedPrecondition(
                f'snapshot "{key}": snapshotter "{self.name}" cannot map ids on this filesystem; '
                "slow_chown in orlopd's [snapshots] lets it copy files instead"
            )
        return self._remapper.copy_of(namespace, parent, mapping, lease)

    def _make(
        self,
        number: int,
        chain: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        """Make a folder, whole or not at all; ResourceExhausted when the disk is full."""
        try:
            with self._in_room():
                self.driver.create(number, chain, read_only=read_only, limits=limits)
        except BaseException:
            self.driver.discard(number)
            raise

    @contextmanager
    def _in_room(self) -> Iterator[None]:
        """ResourceExhausted when the disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ResourceExhausted(
                f'no space left for snapshots below "{self.driver.root}"; free some or '
                "enlarge the disk"
            ) from error

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What clients are told of mapped ids: it does so, or they must not make a copy instead."""
        if self.driver.maps_ids or self._remapper is not None:
            return ("remap-ids",)
        return ("only-remap-ids",) if self.driver.layered else ()

    def mounts(self, namespace: str, key: str) -> list[Mount]:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
            chain = records.chain(tx, record.parent) if record.parent else []
            mapping = _mapping(labels.get(tx, self._kind, namespace, key))
            above = None
            if mapping and record.parent:
                above = self._get(tx, namespace, records.key_of(tx, record.parent))
        if record.kind is Kind.COMMITTED:
            raise FailedPrecondition(f'snapshot "{key}" is committed and has no mounts')
        mounts = self.driver.mounts(record.id, chain, read_only=record.kind is Kind.VIEW)
        return self._mapped(mounts, mapping, above)

    def _mapped(
        self, mounts: list[Mount], mapping: IdMapping | None, above: Record | None
    ) -> list[Mount]:
        """With the options that map the ids of what the snapshot did not write itself.

        A copy from before the kernel, or the filesystem, could do so needs none.
        """
        if mapping is None or not self.driver.maps_ids:
            return mounts
        if above and _is_named_a_copy(above, mapping):
            return mounts
        return [
            each._replace(options=(*each.options, *mapping.options))
            if each.type == "overlay" or "ro" in each.options
            else each
            for each in mounts
        ]

    def commit(
        self,
        namespace: str,
        name: str,
        key: str,
        labels: Mapping[str, str] | None = None,
        lease: str = "",
        parent: str = "",
    ) -> None:
        with (
            self.operations.timed("commit"),
            self._held_if_taken(namespace, name, lease),
            self._committing.take((namespace, key)),
        ):
            self._commit_now(namespace, name, key, labels or {}, lease, parent)
        self._publish_commit(namespace, name, key)

    def _commit_now(
        self,
        namespace: str,
        name: str,
        key: str,
        wanted: Mapping[str, str],
        lease: str,
        parent: str,
    ) -> None:
        """Nobody else does: a client that has waited too long may ask again meanwhile."""
        with self._database.read() as tx:
            if self._has(tx, namespace, name):
                raise AlreadyExists(f'snapshot "{name}"')
            record = self._get(tx, namespace, key)
            chain = records.chain(tx, record.parent) if record.parent else []
        usage = Usage(0, 0)
        if record.kind is Kind.ACTIVE:
            with self._unless_removed(namespace, key):
                usage = self.driver.seal(record.id, chain)
        with self._database.write() as tx:
            if self._get(tx, namespace, key).id != record.id:  # another has its key now
                raise NotFound(f'snapshot "{key}"')
            self._commit(tx, namespace, name, key, wanted, lease, parent, usage)
        self._settle(record.id)

    @contextmanager
    def _unless_removed(self, namespace: str, key: str) -> Iterator[None]:
        """NotFound, rather than what the driver says, if it is removed meanwhile."""
        try:
            yield
        except (OSError, OrlopError):
            with self._database.read() as tx:
                self._get(tx, namespace, key)
            raise

    def usage(self, namespace: str, key: str) -> Usage:
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
        if record.kind is Kind.COMMITTED:
            return Usage(record.size, record.inodes)
        with self._unless_removed(namespace, key):
            return self.driver.usage(record.id)

    def folder(self, namespace: str, key: str) -> Path:
        """Where the files are that a snapshot itself has; NotFound without it."""
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
        return self.driver.content(record.id)

    def size_limit(self, namespace: str, key: str) -> int:
        """How many bytes it may have on disk, 0 for any number; NotFound without it."""
        with self._database.read() as tx:
            record = self._get(tx, namespace, key)
        return self.driver.size_limit(record.id)

    def sync(self) -> None:
        if self._durable:
            with self.operations.timed("sync"), self._in_room():
                sync_filesystem(str(self.driver.snapshots))

    def reap(self) -> None:
        """Delete folders without a row. Only safe while nothing is being prepared: at start."""
        with self._database.read() as tx:
            owned = {row["id"] for row in tx.all("SELECT id FROM snapshots")}
            committed = records.committed(tx, self.name) if self.driver.images else ()
            active = records.active(tx, self.name)
        for number in committed:
            self._settle(number)  # a crash may have come between
        self._make_again(active)
        for number in self.driver.numbers() - owned:
            _log.info("snapshotter=%s reaping orphan snapshot folder %d", self.name, number)
            self._deletion.put_away(number)
        for path in self.driver.trashed():
            self._deletion.add(path)

    def cleanup(self) -> None:
        """What is removed goes at once, orphans at start: that leaves what could not be deleted."""
        if stuck := self._deletion.again():
            path, why = next(iter(stuck.items()))
            others = f", and {len(stuck) - 1} more" if len(stuck) > 1 else ""
            raise FailedPrecondition(
                f'snapshotter "{self.name}" cannot delete "{path}" ({why}){others}: see whether '
                "something is mounted below it, or has the attribute i or a (lsattr -R)"
            )

    def undeleted(self) -> int:
        return self._deletion.undeleted()

    def stuck(self) -> Mapping[Path, str]:
        """What has lost its row and could not be deleted, and why."""
        return self._deletion.stuck()

    def _make_again(self, active: Iterable[tuple[str, Record]]) -> None:
        """Some filesystems (btrfs) may have lost a new folder in a power cut, and kept its row.

        What was written to an older one is not made good by an empty one; nor is a volatile one as
        new after a power cut.
        """
        there = self.driver.numbers()
        for namespace, record in active:
            if record.id in there:
                continue
            with self._database.read() as tx:
                chain = records.chain(tx, record.parent) if record.parent is not None else []
                wanted = labels.get(tx, self._kind, namespace, record.key)
                newest = records.newest(tx)
            where = (self.name, namespace, record.key)
            try:
                if record.created_at < newest - _UNWRITTEN or self._is_volatile(record, wanted):
                    raise FailedPrecondition("put its folder back, or remove the snapshot")
                self._furnish(record.id, chain, record.kind, record.key, wanted)
            except (OrlopError, OSError) as error:
                _log.error('snapshotter=%s namespace=%s "%s" is lost: %s', *where, error)
                continue
            _log.warning('snapshotter=%s namespace=%s "%s" was lost, and is as new', *where)

    def remove_orphan(self, number: int) -> bool:
        """Delete a folder that has no row; whether it has none. It must be nobody's any more.

        FailedPrecondition where it must stay.
        """
        with self._database.write() as tx:
            if tx.one("SELECT 1 FROM snapshots WHERE id = ?", (number,)) is not None:
                return False
            self._deletion.put_away(number)
        folder = self.driver.folder(number)
        if why := self.stuck().get(folder):
            raise FailedPrecondition(f'"{folder}" cannot be deleted: {why}')
        return True

    def extraction(self, namespace: str) -> FolderExtraction:
        if not self.rebase:
            raise Unimplemented(f'snapshotter "{self.name}" unpacks layers on their parents only')
        number = self._ids.next()
        self._make(number, (), read_only=False)
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
        with self.operations.timed("commit"):
            usage = self.driver.usage(number)
            with self._held_if_taken(namespace, name, lease), self._database.write() as tx:
                self._insert(tx, number, namespace, name, parent, Kind.COMMITTED, lease, usage)
                labels.replace(tx, self._kind, namespace, name, wanted)
            self._settle(number)
        self._publish_commit(namespace, name, f"extract {name}")

    def _settle(self, number: int) -> None:
        """What is committed is so, whatever it leaves; the next start tries again."""
        try:
            self.driver.settle(number)
        except (OSError, OrlopError) as error:
            _log.warning("snapshotter=%s snapshot %d leaves files: %s", self.name, number, error)

    def _delete(self, record: Record) -> None:
        self._deletion.put_away(record.id)


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


def _mapping(wanted: Mapping[str, str]) -> IdMapping | None:
    """How a snapshot's labels map uids and gids; None if they do not.

    Raises InvalidArgument for labels that say nothing of the kind.
    """
    uids, gids = wanted.get(UIDS_LABEL, ""), wanted.get(GIDS_LABEL, "")
    return IdMapping(uids, gids) if uids or gids else None


def _is_named_a_copy(above: Record, mapping: IdMapping) -> bool:
    """Whether a snapshot is a copy for a mapping, by its name: ours, or that of our clients."""
    return above.key.endswith(f"-{mapping.name}")
