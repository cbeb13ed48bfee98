"""Layers of a pull: downloaded and unpacked at once, then made snapshots in order.

An overlay upper folder needs no parent, so layers unpack side by side into private folders while
their bytes come in. Where a snapshotter cannot do that, layers are fetched first and applied in
order.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orlop.content import ContentWriter
from orlop.diff import Applier, Unpacked, start_unpack
from orlop.diff.apply import Unpacking
from orlop.diff.inherit import inherit_folders
from orlop.errors import AlreadyExists, Cancelled, DataLoss, NotFound, Unavailable
from orlop.fork.client import ForkServer
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.snapshots import Extraction, Snapshotter
from orlop.transfer.fetch import Fetcher
from orlop.transfer.labels import ref_key
from orlop.transfer.progress import COMPLETE, EXISTS, EXTRACTED, EXTRACTING, Progress

_PIPE_SIZE = 1 << 20
_UNCOMPRESSED = "containerd.io/uncompressed"


@dataclass(slots=True)
class LayerJob:
    """One layer on its way; `skip` when its snapshot is there already."""

    layer: Descriptor
    diff_id: str
    chain: str
    parent: str
    skip: bool
    extraction: Extraction | None = None
    done: Unpacked | None = None


class Unpacker:
    """Unpacks one image's layers for one snapshotter."""

    def __init__(
        self,
        fetcher: Fetcher,
        snapshotter: Snapshotter,
        applier: Applier,
        forks: ForkServer,
        ctx: CallContext,
    ) -> None:
        self._fetcher = fetcher
        self._snapshotter = snapshotter
        self._applier = applier
        self._forks = forks
        self._ctx = ctx
        self._namespace = fetcher.namespace

    def present(self, chains: Sequence[str]) -> int:
        """How many layers, from the lowest, have their snapshot already."""
        for count in range(len(chains), 0, -1):
            try:
                self._snapshotter.stat(self._namespace, chains[count - 1])
            except NotFound:
                continue
            return count
        return 0

    def prepare(self, job: LayerJob, stop: threading.Event) -> None:
        """Fetch a layer and, where it can be done at once, unpack it into a private folder."""
        if job.skip or not self._snapshotter.rebase:
            self._fetcher.blob(job.layer, stop)
            return
        job.extraction = self._snapshotter.extraction(self._namespace)
        with self._fetcher.writer(job.layer, stop) as writer:
            if writer is not None and writer.offset == 0:
                self._download_and_unpack(job, writer, stop)
                return
            if writer is not None:
                self._fetcher.download(writer, job.layer, stop, lambda _: None)
                self._fetcher.commit(writer, job.layer)
        self._say(EXISTS if writer is None else COMPLETE, job)
        self._unpack_stored(job, stop)

    def _download_and_unpack(
        self, job: LayerJob, writer: ContentWriter, stop: threading.Event
    ) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            with self._unpacking(job, read, stop) as unpacking:
                os.close(read)
                read = -1
                feed = _Feed(write)
                self._fetcher.download(writer, job.layer, stop, feed)
                # Verified before anything of it is used: what the bytes were decides.
                self._fetcher.commit(writer, job.layer)
                self._say(EXTRACTING, job)
                os.close(write)
                write = -1
                self._finish(job, unpacking, stop)
        finally:
            for fd in (read, write):
                if fd >= 0:
                    os.close(fd)

    def _unpack_stored(self, job: LayerJob, stop: threading.Event) -> None:
        self._say(EXTRACTING, job)
        with (
            self._fetcher.content.open(self._namespace, job.layer.digest) as blob,
            self._unpacking(job, blob.fd, stop) as unpacking,
        ):
            self._finish(job, unpacking, stop)

    @contextmanager
    def _unpacking(self, job: LayerJob, source: int, stop: threading.Event) -> Iterator[Unpacking]:
        assert job.extraction is not None
        if stop.is_set():
            raise Cancelled
        with start_unpack(
            self._forks, source, job.extraction.path, overlay=True, limits=self._applier.limits
        ) as unpacking:
            self._ctx.on_cancel(unpacking.cancel)
            yield unpacking

    def _finish(self, job: LayerJob, unpacking: Unpacking, stop: threading.Event) -> None:
        try:
            job.done = unpacking.result()
        except Unavailable:
            self._ctx.check()  # it died because it was told to
            if stop.is_set():
                raise Cancelled from None
            raise
        _check_diff_id(job, job.done.diff_id)
        self._say(EXTRACTED, job)

    def commit(self, job: LayerJob) -> None:
        """Make a layer's snapshot, on its parent's; somebody else's is as good."""
        if job.skip:
            return
        try:
            if job.extraction is None:
                self._apply_in_order(job)
            else:
                self._inherit(job)
                extraction, job.extraction = job.extraction, None
                extraction.commit(job.chain, job.parent, {}, self._fetcher.lease)
        except AlreadyExists:
            pass
        self._fetcher.label(job.layer, {_UNCOMPRESSED: job.diff_id})

    def _apply_in_order(self, job: LayerJob) -> None:
        key = f"extract-{secrets.token_hex(6)} {job.chain}"
        lease = self._fetcher.lease
        mounts = self._snapshotter.prepare(self._namespace, key, job.parent, {}, lease)
        try:
            self._say(EXTRACTING, job)
            done = self._applier.apply(self._namespace, job.layer, mounts, self._ctx)
            _check_diff_id(job, done.digest)
            self._snapshotter.commit(self._namespace, job.chain, key, {}, lease)
        except BaseException:
            self._snapshotter.remove(self._namespace, key)
            raise
        self._say(EXTRACTED, job)

    def _inherit(self, job: LayerJob) -> None:
        """Folders that the layer implies take their looks from the layers below it."""
        if job.extraction is None or job.done is None or not job.done.implicit or not job.parent:
            return
        key = f"inherit-{secrets.token_hex(6)} {job.chain}"
        (below,) = self._snapshotter.view(self._namespace, key, job.parent)
        try:
            options = dict(option.partition("=")[::2] for option in below.options)
            lowers = options.get("lowerdir", below.source).split(":")
            inherit_folders(job.extraction.path, [Path(p) for p in lowers], job.done.implicit)
        finally:
            self._snapshotter.remove(self._namespace, key)

    @staticmethod
    def discard(jobs: Sequence[LayerJob]) -> None:
        """Drop the folders that did not become snapshots."""
        for job in jobs:
            if job.extraction is not None:
                job.extraction.discard()
                job.extraction = None

    def _say(self, event: str, job: LayerJob) -> None:
        size = job.layer.size
        self._fetcher.tell(Progress(event, ref_key(job.layer), size, size, job.layer.digest))


class _Feed:
    """Gives bytes to a worker. One that refused its layer reads no more; its answer says why."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._broken = False

    def __call__(self, data: bytes) -> None:
        if self._broken:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            self._broken = True


def _check_diff_id(job: LayerJob, diff_id: str) -> None:
    if diff_id != job.diff_id:
        raise DataLoss(
            f"layer {job.layer.digest} unpacks to {diff_id}, but the image config says "
            f"{job.diff_id}"
        )
