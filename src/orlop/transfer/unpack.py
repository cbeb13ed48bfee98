"""Layers of a pull: downloaded and unpacked at once, then made snapshots in order.

An overlay upper folder needs no parent, so layers unpack side by side into private folders while
their bytes come in. Where a snapshotter cannot do that, layers are fetched first and applied in
order.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orlop import tracing
from orlop.content import ContentWriter
from orlop.diff.apply import Applier, Unpacked, Unpacking, start_index, start_unpack
from orlop.diff.inherit import inherit_folders
from orlop.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound, Unavailable
from orlop.fork.client import ForkServer
from orlop.leases.model import Resource
from orlop.leases.store import LeaseStore
from orlop.oci import mediatypes
from orlop.oci.chain import chain_ids
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.snapshots import Extraction, Snapshotter
from orlop.sys.fs import widen
from orlop.sys.mount import Mount
from orlop.transfer.documents import Found
from orlop.transfer.fetch import until_sound
from orlop.transfer.hints import hints
from orlop.transfer.parts import Parts
from orlop.transfer.progress import COMPLETE, EXISTS, EXTRACTED, EXTRACTING, about

_PIPE_SIZE = 1 << 20
_UNCOMPRESSED = "containerd.io/uncompressed"
_SNAPSHOT_REF = "containerd.io/gc.ref.snapshot."


@dataclass(slots=True)
class LayerJob:
    """One layer on its way; `skip` when its snapshot is there already."""

    layer: Descriptor
    diff_id: str
    chain: str
    parent: str
    skip: bool = False
    # The snapshotter has it by itself: nothing of it is fetched.
    remote: bool = False
    hints: Mapping[str, str] = field(default_factory=dict)
    # Begun on its parent: the key of its snapshot, and where to apply it.
    key: str = ""
    mounts: Sequence[Mount] = ()
    extraction: Extraction | None = None
    done: Unpacked | None = None


def layer_jobs(found: Found, takes: Callable[[str], bool]) -> list[LayerJob]:
    """The layers of an image, lowest first; InvalidArgument if they are not those of its config.

    `takes` tells whether layers of a media type can be unpacked.
    """
    layers = [each for each in found.manifest.layers if takes(each.media_type)]
    diff_ids = found.config.rootfs.diff_ids if found.config else ()
    if not len(layers) == len(diff_ids) == len(found.manifest.layers):
        raise InvalidArgument(
            f"manifest {found.descriptor.digest} has {len(found.manifest.layers)} layers, "
            f"{len(layers)} of them to unpack, but its config has {len(diff_ids)} diff IDs"
        )
    chains = chain_ids(diff_ids)
    return [
        LayerJob(layer, diff_id, chain, parent)
        for layer, diff_id, chain, parent in zip(
            layers, diff_ids, chains, ["", *chains[:-1]], strict=True
        )
    ]


class Unpacker:
    """Unpacks the layers of the image `manifest` for one snapshotter."""

    def __init__(
        self,
        fetcher: Parts,
        manifest: Descriptor,
        snapshotter: Snapshotter,
        leases: LeaseStore,
        applier: Applier,
        forks: ForkServer,
        ctx: CallContext,
    ) -> None:
        self._fetcher = fetcher
        self._manifest = manifest.digest
        self._snapshotter = snapshotter
        self._leases = leases
        self._applier = applier
        self._forks = forks
        self._ctx = ctx
        self._namespace = fetcher.namespace

    def skip_present(self, jobs: Sequence[LayerJob]) -> None:
        """Mark the layers whose snapshots are there already, and hold those by the lease."""
        for count in range(len(jobs), 0, -1):
            if self._hold(jobs[count - 1].chain):
                for job in jobs[:count]:
                    job.skip = True
                return

    def _hold(self, chain: str) -> bool:
        if not self._exists(chain):
            return False
        resource = Resource(f"snapshots/{self._snapshotter.name}", chain)
        self._leases.add_resource(self._namespace, self._fetcher.lease, resource)
        return self._exists(chain)  # it may have gone before it was held

    def _exists(self, chain: str) -> bool:
        try:
            self._snapshotter.stat(self._namespace, chain)
        except NotFound:
            return False
        return True

    def ask(self, jobs: Sequence[LayerJob]) -> None:
        """Let a snapshotter that may have layers by itself say which, from the lowest one on."""
        if not self._snapshotter.remote:
            return
        for number, job in enumerate(jobs):
            layers = [each.layer for each in jobs[number:]]
            job.hints = hints(job.chain, self._fetcher.image, self._manifest, layers)
            job.remote = job.skip
        for job in jobs:
            if not job.skip and not self._begin(job):
                return

    def _begin(self, job: LayerJob) -> bool:
        """Begin a layer's snapshot on its parent's; True if the snapshotter has it already."""
        key = f"extract-{secrets.token_hex(6)} {job.chain}"
        lease = self._fetcher.lease
        try:
            job.mounts = self._snapshotter.prepare(
                self._namespace, key, job.parent, job.hints, lease
            )
        except AlreadyExists:
            if not self._hold(job.chain):
                raise
            job.skip = job.remote = True
            self._say(EXISTS, job)
            return True
        job.key = key
        return False

    def prepare(self, job: LayerJob) -> None:
        """Fetch a layer and, where it can be done at once, unpack it into a private folder."""
        self._ctx.check()
        if (
            job.skip
            or not self._snapshotter.rebase
            or not mediatypes.is_layer(job.layer.media_type)
        ):
            if not job.remote:
                self._fetcher.blob(job.layer)
            return
        until_sound(lambda: self._fetch_and_unpack(job), lambda: self.discard([job]))

    def _fetch_and_unpack(self, job: LayerJob) -> None:
        job.extraction = self._snapshotter.extraction(self._namespace)
        with self._fetcher.writer(job.layer) as writer:
            if writer is not None and writer.offset < job.layer.size:
                self._download_and_unpack(job, writer)
                return
            if writer is not None:  # all that was missing was the commit
                self._fetcher.commit(writer, job.layer)
        self._say(EXISTS if writer is None else COMPLETE, job)
        self._unpack_stored(job)

    def _download_and_unpack(self, job: LayerJob, writer: ContentWriter) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            widen(write, _PIPE_SIZE)
            with self._unpacking(job, read) as unpacking:
                os.close(read)
                read = -1
                feed = _Feed(writer, write)
                feed()  # what an earlier pull has left
                with tracing.span("fetch", about(job.layer)):
                    self._fetcher.download(writer, job.layer, feed)
                    # Verified before anything of it is used: what the bytes were decides.
                    self._fetcher.commit(writer, job.layer)
                self._say(EXTRACTING, job)
                os.close(write)
                write = -1
                self._finish(job, unpacking)
        finally:
            for fd in (read, write):
                if fd >= 0:
                    os.close(fd)

    def _unpack_stored(self, job: LayerJob) -> None:
        self._say(EXTRACTING, job)
        with (
            self._fetcher.content.open(self._namespace, job.layer.digest) as blob,
            self._unpacking(job, blob.fd) as unpacking,
        ):
            self._finish(job, unpacking)

    @contextmanager
    def _unpacking(self, job: LayerJob, source: int) -> Iterator[Unpacking]:
        assert job.extraction is not None
        path, limits = job.extraction.path, self._applier.limits
        if job.extraction.image:
            work = start_index(self._forks, source, path, limits=limits)
        else:
            work = start_unpack(self._forks, source, path, overlay=True, limits=limits)
        with tracing.span("unpack", about(job.layer)), work as unpacking:
            self._ctx.on_cancel(unpacking.cancel)
            yield unpacking

    def _finish(self, job: LayerJob, unpacking: Unpacking) -> None:
        try:
            job.done = unpacking.result()
        except Unavailable:
            self._ctx.check()  # it died because it was told to
            raise
        _check_diff_id(job, job.done.diff_id)
        self._say(EXTRACTED, job)

    def sync(self, jobs: Sequence[LayerJob]) -> None:
        """Once all are prepared: their files must be on disk before a record says that they are."""
        if any(job.extraction is not None for job in jobs):
            with tracing.span("sync", {}):
                self._snapshotter.sync()

    def commit(self, job: LayerJob) -> None:
        """Make a layer's snapshot, on its parent's; somebody else's is as good."""
        if job.skip:
            return
        with tracing.span("commit", {**about(job.layer), "orlop.snapshot": job.chain}):
            self._commit(job)

    def _commit(self, job: LayerJob) -> None:
        try:
            if job.extraction is not None and not self._inherit(job):
                self.discard([job])
            if job.extraction is None:
                self._apply_in_order(job)
            else:
                extraction, job.extraction = job.extraction, None
                extraction.commit(job.chain, job.parent, {}, self._fetcher.lease)
        except AlreadyExists:
            pass
        if not job.remote:
            self._fetcher.label(job.layer, {_UNCOMPRESSED: job.diff_id})

    def _apply_in_order(self, job: LayerJob) -> None:
        if not job.key and self._begin(job):
            return
        self._say(EXTRACTING, job)
        with tracing.span("unpack", about(job.layer)):
            done = self._applier.apply(self._namespace, job.layer, job.mounts, self._ctx)
        _check_diff_id(job, done.digest)
        self._snapshotter.sync()
        self._snapshotter.commit(
            self._namespace, job.chain, job.key, job.hints, self._fetcher.lease
        )
        job.key = ""
        self._say(EXTRACTED, job)

    def _inherit(self, job: LayerJob) -> bool:
        """Folders that the layer implies take their looks from the layers below it.

        False if that must be known when the layer is unpacked.
        """
        if job.extraction is None or job.done is None or not job.done.implicit or not job.parent:
            return True
        key = f"inherit-{secrets.token_hex(6)} {job.chain}"
        (below,) = self._snapshotter.view(self._namespace, key, job.parent, {}, self._fetcher.lease)
        try:
            options = dict(option.partition("=")[::2] for option in below.options)
            lowers = [Path(p) for p in options.get("lowerdir", below.source).split(":")]
            if job.extraction.image:
                return job.done.inherit(job.extraction.path, lowers)
            inherit_folders(job.extraction.path, lowers, job.done.implicit)
            self._snapshotter.sync()
            return True
        finally:
            self._snapshotter.remove(self._namespace, key)

    def discard(self, jobs: Sequence[LayerJob]) -> None:
        """Drop the folders that did not become snapshots, and the snapshots that were begun."""
        for job in jobs:
            if job.extraction is not None:
                job.extraction.discard()
                job.extraction = None
            if job.key:
                key, job.key = job.key, ""
                self._snapshotter.remove(self._namespace, key)

    def label_config(self, config: Descriptor, jobs: Sequence[LayerJob]) -> None:
        """Let the config hold the snapshot of all layers."""
        if jobs:
            labels = {_SNAPSHOT_REF + self._snapshotter.name: jobs[-1].chain}
            self._fetcher.label(config, labels)

    def _say(self, event: str, job: LayerJob) -> None:
        self._fetcher.say(event, job.layer, job.layer.size)


class _Feed:
    """Gives a worker what has come, out of the ingest's own file: nothing is copied here.

    A worker that refused its layer reads no more; its answer says why.
    """

    def __init__(self, writer: ContentWriter, pipe: int) -> None:
        self._writer = writer
        self._pipe = pipe
        self._position = 0
        self._broken = False

    def __call__(self) -> None:
        source = self._writer.fileno()
        while self._position < self._writer.offset and not self._broken:
            count = self._writer.offset - self._position
            try:
                self._position += os.splice(source, self._pipe, count, offset_src=self._position)
            except BrokenPipeError:
                self._broken = True


def _check_diff_id(job: LayerJob, diff_id: str) -> None:
    if diff_id != job.diff_id:
        raise DataLoss(
            f"layer {job.layer.digest} unpacks to {diff_id}, but the image config says "
            f"{job.diff_id}"
        )
