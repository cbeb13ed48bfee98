"""The store: blobs that are there, and the way to new ones.

The order of things keeps it whole through a crash: data is synced and renamed before its row is
committed, and a file goes after its last row. What a crash leaves is reaped by `reap` at start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.content import listing, records
from orlop.content.files import SHARED, Files, ingest_name
from orlop.content.model import Info, Status
from orlop.content.protection import Protection
from orlop.content.reader import BlobReader
from orlop.content.refs import Refs, aborted, unless_aborted
from orlop.content.writer import ContentWriter, Ingest
from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, clock, fieldmask, filters, labels
from orlop.metadata.references import attach_to_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.oci.digest import Digest
from orlop.tally import Counter, Timing
from orlop.wire import events_pb2

_KIND = "content"
SHAREABLE_LABEL = "containerd.io/namespace.shareable"

_log = logging.getLogger(__name__)


class ContentStore:
    """Blobs and ingests below `root`.

    `shared` is the policy for blobs that another namespace has: a write that expects one is done at
    once; otherwise its bytes must be sent in full.
    """

    def __init__(
        self,
        database: Database,
        root: Path,
        publisher: Publisher,
        *,
        shared: bool = True,
        protection: Protection | None = None,
    ) -> None:
        self.files = Files(root)
        self._database = database
        self._publisher = publisher
        self._shared = shared
        self._protection = protection or Protection()
        self._refs = Refs()
        # Blob files and their rows change together.
        self._blob_lock = threading.Lock()
        self.committed = Counter()
        self.operations = Timing("operation")

    def info(self, namespace: str, digest: str) -> Info:
        """Raises NotFound, and InvalidArgument for a malformed digest."""
        Digest.parse(digest)
        with self._database.read() as tx:
            found = records.find(tx, namespace, digest)
            if found is None:
                raise NotFound(f'content "{digest}"')
            return found.info(labels.get(tx, _KIND, namespace, digest))

    def exists(self, namespace: str, digest: str) -> bool:
        with self._database.read() as tx:
            return records.find(tx, namespace, digest) is not None

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Info]:
        """The blobs of a namespace; filter fields are digest, size and labels."""
        chosen = filters.parse(wanted)
        with self._database.read() as tx:
            rows = records.all_of(tx, namespace)
            found = labels.get_all(tx, _KIND, namespace)
        infos = (row.info(found.get(row.digest, {})) for row in rows)
        return [i for i in infos if chosen.everything or chosen.matches(_lookup(i))]

    def listing(self, namespace: str) -> Sequence[bytes]:
        """All blobs of a namespace, by digest, as the `info` of ListContentResponses."""
        with self._database.read() as tx:
            return listing.blobs(tx, _KIND, namespace)

    def sizes(self, namespace: str) -> dict[str, int]:
        """The sizes of a namespace's blobs, by digest."""
        with self._database.read() as tx:
            return {row.digest: row.size for row in records.all_of(tx, namespace)}

    def claim(self, namespace: str, digest: str, lease: str) -> bool:
        """Whether the namespace has the blob; if so, the lease holds it from now on."""
        with self._database.write() as tx:
            there = records.find(tx, namespace, digest) is not None
            if there:
                attach_to_lease(tx, namespace, lease, "content", digest)
        return there

    def update(
        self, namespace: str, digest: str, wanted: Mapping[str, str], mask: FieldMask
    ) -> Info:
        """Change labels; raises NotFound, InvalidArgument for another field."""
        Digest.parse(digest)
        changes = fieldmask.paths(mask, fields=("labels",), maps=("labels",))
        labels.validate(wanted)
        with self._database.write() as tx:
            if records.find(tx, namespace, digest) is None:
                raise NotFound(f'content "{digest}"')
            before = labels.get(tx, _KIND, namespace, digest)
            labels.replace(tx, _KIND, namespace, digest, changes.merge("labels", before, wanted))
            records.touch(tx, namespace, digest)
        return self.info(namespace, digest)

    def delete(self, namespace: str, digest: str) -> None:
        """Take a blob from a namespace; its file goes with the last one. Raises NotFound."""
        Digest.parse(digest)
        if not self.collect([(namespace, digest)], lambda *_: True):
            raise NotFound(f'content "{digest}"')

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Take those blobs from their namespaces that nothing keeps; how many there were."""
        gone = []
        with self.operations.timed("delete"), self._blob_lock:
            with self._database.write() as tx:
                for namespace, digest in keys:
                    if records.find(tx, namespace, digest) and dead(tx, namespace, digest):
                        records.delete(tx, namespace, digest)
                        labels.remove(tx, _KIND, namespace, digest)
                        records.release_from_leases(tx, namespace, "content", digest)
                        gone.append((namespace, digest))
                orphans = {each for _, each in gone if not records.known_anywhere(tx, each)}
            doomed = [path for each in orphans if (path := self._doom(each)) is not None]
        for path in doomed:  # large ones take long
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning('"%s" stays until the next start: %s', path, error)
        for namespace, digest in gone:
            event = events_pb2.ContentDelete(digest=digest)
            self._publisher.publish(namespace, "/content/delete", event)
        return len(gone)

    def _doom(self, digest: str) -> Path | None:
        """The file of a blob that has no record any more, to be deleted."""
        try:
            return self.files.doom(digest)
        except OSError as error:  # the others must go, and be told of
            _log.warning('content "%s" stays until the next start: %s', digest, error)
            return None

    def collect_ingests(self, keys: Iterable[Key], dead: Dead) -> int:
        """Give up those writes that nobody has gone on with in time; how many."""
        gone = []
        with self._refs.idle(keys) as idle:
            with self._database.write() as tx:
                for namespace, ref in idle:
                    if records.find_ingest(tx, namespace, ref) and dead(tx, namespace, ref):
                        records.delete_ingest(tx, namespace, ref)
                        records.release_from_leases(tx, namespace, "ingests", ref)
                        gone.append((namespace, ref))
            for namespace, ref in gone:
                self.files.drop_ingest(ingest_name(namespace, ref))
        return len(gone)

    def open(self, namespace: str, digest: str) -> BlobReader:
        """Open a blob for reading; raises NotFound."""
        info = self.info(namespace, digest)
        try:
            return BlobReader(self.files.blob(digest), info.size)
        except FileNotFoundError:
            raise NotFound(f'content "{digest}"') from None

    def read(self, namespace: str, digest: str) -> bytes:
        """The whole of a small blob, such as a manifest."""
        with self.open(namespace, digest) as blob:
            return blob.read_all()

    def writer(
        self, namespace: str, ref: str, *, total: int = 0, expected: str = "", lease: str = ""
    ) -> ContentWriter:
        """Begin a write under `ref`, or go on with one that was broken off.

        Raises InvalidArgument without a ref, Locked while another writer has it, AlreadyExists
        (the lease then holds the blob) when the namespace has `expected`, and Aborted when it is
        given up at once.
        """
        if not ref:
            raise InvalidArgument("a write needs a ref")
        if expected:
            Digest.parse(expected)
        self._refs.take((namespace, ref))
        try:
            with self._refs.beginning((namespace, ref)):
                ingest = self._begin(namespace, ref, total, expected, lease)
            return ContentWriter(self, ingest)
        except BaseException:
            self.release(namespace, ref)
            raise

    def release(self, namespace: str, ref: str) -> None:
        """Unlock a ref (for the writer)."""
        self._refs.release((namespace, ref))

    def _begin(self, namespace: str, ref: str, total: int, expected: str, lease: str) -> Ingest:
        if expected and self.supersede(namespace, ref, expected, lease):
            raise AlreadyExists(f'content "{expected}"')
        name = ingest_name(namespace, ref)
        if self.files.has_ingest(name):
            self._clear_unless_it_goes_on(namespace, ref, total, expected)
        with self._database.write() as tx:
            ensure_namespace(tx, namespace)
            row = records.begin_ingest(tx, namespace, ref, name, total, expected)
            attach_to_lease(tx, namespace, lease, "ingests", ref)
            size = self._size_elsewhere(tx, expected, total) if expected else None
        folder = self.files.make_ingest(name)
        if size is not None and not self.files.share(expected, name):
            size = None
        return Ingest(
            namespace=namespace,
            ref=ref,
            folder=folder,
            total=total or row.total,
            expected=expected,
            started_at=row.started_at,
            lease=lease,
            shared_size=size,
        )

    def _clear_unless_it_goes_on(self, ns: str, ref: str, total: int, expected: str) -> None:
        """Before the record of another write, to which older data would belong after a crash."""
        with self._database.read() as tx:
            found = records.find_ingest(tx, ns, ref)
        if not records.goes_on(found, total, expected):
            self.files.clear_ingest(ingest_name(ns, ref))

    def supersede(self, namespace: str, ref: str, digest: str, lease: str) -> bool:
        """Drop a write because the namespace has the blob; False if it has not.

        Whoever leased the write, and `lease`, then holds the blob.
        """
        if not self.exists(namespace, digest):
            return False
        with self._database.write() as tx:
            if records.find(tx, namespace, digest) is None:
                return False
            self._settle(tx, namespace, ref, digest, lease)
        self.files.drop_ingest(ingest_name(namespace, ref))
        return True

    @staticmethod
    def _settle(tx: Transaction, namespace: str, ref: str, digest: str, lease: str) -> None:
        """A blob takes the place of an ingest."""
        attach_to_lease(tx, namespace, lease, "content", digest)
        records.delete_ingest(tx, namespace, ref)
        records.lease_blob_instead(tx, namespace, ref, digest)

    def _size_elsewhere(self, tx: Transaction, digest: str, total: int) -> int | None:
        """The size of a blob that other namespaces have and would share, or None."""
        size = records.size_in_any(
            tx, digest, shareable_label=None if self._shared else SHAREABLE_LABEL
        )
        return size if total in (0, size) else None

    def finish(
        self, ingest: Ingest, data: Path, digest: Digest, size: int, wanted: Mapping[str, str]
    ) -> None:
        """Make verified, synced data, which nobody has open to write, a blob (for the writer).

        Raises AlreadyExists, with the lease holding the blob, when the namespace has it, and
        Aborted when the ingest has gone. When it fails, the ingest has the data still.
        """
        labels.validate(wanted)
        with unless_aborted(ingest.ref):
            if data.name != SHARED:
                self._seal(data)
            with self._blob_lock:
                published = self._publish(data, digest)
                try:
                    there = self._record(ingest, digest, size, wanted)
                except BaseException:
                    if published:
                        self.files.remove(digest)
                    raise
        self.files.drop_ingest(ingest.folder.name)
        if there:
            raise AlreadyExists(f'content "{digest}"')
        self.committed.add(by=size)
        event = events_pb2.ContentCreate(digest=digest, size=size)
        self._publisher.publish(ingest.namespace, "/content/create", event)

    def _publish(self, data: Path, digest: str) -> bool:
        """Give data a blob's name, under the lock; False if a file has it that is recorded."""
        if self.files.publish(data, digest):
            return True
        if self._is_known(digest):
            return False
        # Somebody failed to remove it, and may even write to it.
        self.files.publish_instead(data, digest)
        return True

    def _is_known(self, digest: str) -> bool:
        with self._database.read() as tx:
            return records.known_anywhere(tx, digest)

    def _record(self, ingest: Ingest, digest: Digest, size: int, wanted: Mapping[str, str]) -> bool:
        """Write down a blob in place of its ingest; whether it was known."""
        namespace = ingest.namespace
        with self._database.write() as tx:
            if records.find_ingest(tx, namespace, ingest.ref) is None:
                raise aborted(ingest.ref)
            there = records.find(tx, namespace, digest) is not None
            if not there:
                records.insert(tx, namespace, digest, size)
                labels.replace(tx, _KIND, namespace, digest, wanted)
            self._settle(tx, namespace, ingest.ref, digest, ingest.lease)
        return there

    def _seal(self, data: Path) -> None:
        """Let nobody write to what is to be a blob: before its record, which tells that it is one.

        The kernel watches over it, if that is wanted.
        """
        self.files.seal(data)
        self._protection.apply(data)

    def status(self, namespace: str, ref: str) -> Status:
        """Raises NotFound."""
        with self._database.read() as tx:
            row = records.find_ingest(tx, namespace, ref)
        if row is None:
            raise NotFound(f'ingest "{ref}"')
        return self._status(row)

    def statuses(self, namespace: str, wanted: Iterable[str] = ()) -> Sequence[Status]:
        """Writes in progress; the filter field is ref."""
        chosen = filters.parse(wanted)
        with self._database.read() as tx:
            rows = records.ingests_of(tx, namespace)
        return [
            self._status(row) for row in rows if chosen.matches(filters.record({"ref": row.ref}))
        ]

    def open_writes(self) -> Sequence[tuple[str, Status]]:
        """Those writes in progress, with their namespaces, that somebody writes right now."""
        with self._database.read() as tx:
            rows = [(key[0], records.find_ingest(tx, *key)) for key in self._refs.held()]
        return [(namespace, self._status(row)) for namespace, row in rows if row is not None]

    def _status(self, row: records.IngestRow) -> Status:
        offset, written_at = self.files.written(row.directory)
        updated_at = max(row.started_at, written_at)
        return Status(row.ref, offset, row.total, row.expected, row.started_at, updated_at)

    def abort(self, namespace: str, ref: str) -> None:
        """Give up a write and its data, also under who writes; raises NotFound."""
        with self._refs.ending((namespace, ref)):
            with self._database.write() as tx:
                if records.find_ingest(tx, namespace, ref) is None:
                    raise NotFound(f'ingest "{ref}"')
                records.delete_ingest(tx, namespace, ref)
                records.release_from_leases(tx, namespace, "ingests", ref)
            self.files.drop_ingest(ingest_name(namespace, ref))

    def take(
        self,
        namespace: str,
        digest: str,
        data: Path | None,
        wanted: Mapping[str, str],
        lease: str,
        *,
        ours: bool = True,
    ) -> bool:
        """Make verified, synced data of this filesystem a blob; False if the namespace has it.

        The lease holds it either way. None is for a blob that another namespace has: NotFound where
        none has. A file that is not `ours` alone is left as it is. Raises InvalidArgument for
        labels that are too long.
        """
        labels.validate(wanted)
        if data is not None and ours:
            self._seal(data)
        with self._blob_lock:
            if data is None and not self._is_known(digest):
                raise NotFound(f'content "{digest}"')
            published = data is not None and self._publish(data, digest)
            try:
                size = self.files.blob(digest).stat().st_size
                there = self._take(namespace, digest, size, wanted, lease)
            except FileNotFoundError:
                raise NotFound(f'content "{digest}"') from None
            except BaseException:
                if published:
                    self.files.remove(digest)
                raise
        if not there:
            event = events_pb2.ContentCreate(digest=digest, size=size)
            self._publisher.publish(namespace, "/content/create", event)
        return not there

    def _take(
        self, namespace: str, digest: str, size: int, wanted: Mapping[str, str], lease: str
    ) -> bool:
        """Write a blob down; whether the namespace had it."""
        with self._database.write() as tx:
            ensure_namespace(tx, namespace)
            there = records.find(tx, namespace, digest) is not None
            if not there:
                records.insert(tx, namespace, digest, size)
                labels.replace(tx, _KIND, namespace, digest, wanted)
            attach_to_lease(tx, namespace, lease, "content", digest)
        return there

    # Mending

    def replace(self, digest: str, data: Path) -> None:
        """Let verified, synced data take the place of a blob that is damaged, or lost its file.

        What was there is set aside. Raises NotFound when no namespace has the blob any more.
        """
        self._seal(data)
        with self._blob_lock:
            if not self._is_known(digest):
                raise NotFound(f'content "{digest}"')
            self.files.replace(data, digest)

    def give_up(self, digest: str) -> Path | None:
        """Drop a blob's records in all namespaces, and set its file aside: the path, if any.

        Raises AlreadyExists when its file is whole: it may have been mended meanwhile.
        """
        while True:
            seen = self.files.identity(digest)
            if self.files.is_whole(digest):
                raise AlreadyExists(f'content "{digest}"')
            with self._blob_lock:
                if self.files.identity(digest) != seen:
                    continue  # reading takes too long to do it under the lock
                with self._database.write() as tx:
                    records.delete_everywhere(tx, digest)
                return self.files.set_aside(digest)

    def correct_size(self, digest: str) -> None:
        """Let the records say what the file has."""
        with self._blob_lock, self._database.write() as tx:
            records.set_size(tx, digest, self.files.blob(digest).stat().st_size)

    def remove_orphan(self, digest: str) -> bool:
        """Delete a blob file that no record knows; whether it was one."""
        with self._blob_lock:
            if self._is_known(digest):
                return False
            doomed = self.files.doom(digest)
        if doomed is not None:
            doomed.unlink(missing_ok=True)
        return doomed is not None

    def remove_orphan_ingest(self, name: str) -> bool:
        """Delete the folder of an ingest that no record knows; whether it was one."""
        with self._database.write() as tx:  # its record would come before it
            if name in records.ingest_directories(tx):
                return False
            self.files.drop_ingest(name)
        return True

    def reap(self) -> None:
        """Remove what a crash left behind, and expired ingests. Only at start.

        A record whose file has gone or has another size is dropped and logged, and the file set
        aside: a blob that cannot be read must not keep a client from writing it again.
        """
        self.files.empty_trash()
        present = self.files.sizes()
        with self._database.write() as tx:
            records.delete_expired_ingests(tx, clock.now())
            ingests = records.ingest_directories(tx)
            known = records.all_sizes(tx)
            lost = [digest for digest, size in known.items() if present.get(digest) != size]
            for digest in lost:
                records.delete_everywhere(tx, digest)
        for digest in lost:
            aside = self.files.set_aside(digest)
            what = f'has another size, it is "{aside}" now' if aside else "has lost its file"
            _log.error('content "%s" %s; its records are dropped', digest, what)
        for digest in present.keys() - known.keys():
            _log.info('reaping blob "%s" that no record knows', digest)
            self.files.remove(digest)
        for name in self.files.ingests() - ingests:
            self.files.drop_ingest(name)


def _lookup(info: Info) -> filters.Lookup:
    return filters.record({"digest": info.digest, "size": str(info.size)}, labels=info.labels)
