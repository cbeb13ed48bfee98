"""Pull: resolve, fetch the documents, then all layers at once; the image record comes last.

Everything is under a lease from the first byte. Whatever fails, what was fetched stays as blobs or
resumable ingests, and no snapshot is half-made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from orlop.content import ContentStore
from orlop.diff.apply import Applier
from orlop.errors import AlreadyExists, Cancelled, InvalidArgument
from orlop.fork.client import ForkServer
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci import platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.snapshots import Snapshotter
from orlop.transfer.documents import Documents, Found
from orlop.transfer.fetch import Fetcher
from orlop.transfer.lease import holding
from orlop.transfer.progress import SAVED, Progress, Report, Throttle
from orlop.transfer.unpack import Unpacker, layer_jobs


@dataclass(frozen=True, slots=True)
class ExtraName:
    """One more name for an image, to which its digest may be added."""

    name: str
    add_digest: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to pull, and what to make of it.

    `platforms` empty means all that the image has; `limit` is how many of them to pull at most, 0
    without one. `all_metadata` fetches the documents, not the layers, of the other platforms, too.
    `unpack` maps platforms to the snapshotters that they are unpacked for.
    """

    name: str
    platforms: Sequence[Platform] = ()
    unpack: Sequence[tuple[Platform, str]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    all_metadata: bool = False
    limit: int = 0
    extra_names: Sequence[ExtraName] = ()

    def images(self, target: Descriptor) -> list[Image]:
        """The records to make."""
        extra = (f"{e.name}@{target.digest}" if e.add_digest else e.name for e in self.extra_names)
        return [Image(name, target, self.labels) for name in (self.name, *extra)]


class Puller:
    """Pulls images into the stores that it is given; usable by many calls at once."""

    def __init__(
        self,
        content: ContentStore,
        images: ImageStore,
        leases: LeaseStore,
        snapshotters: Mapping[str, Snapshotter],
        applier: Applier,
        forks: ForkServer,
        *,
        layers_at_once: int = 3,
    ) -> None:
        self._content = content
        self._images = images
        self._leases = leases
        self._snapshotters = snapshotters
        self._applier = applier
        self._forks = forks
        self._layers_at_once = layers_at_once

    def pull(
        self,
        namespace: str,
        client: RegistryClient,
        wanted: Wanted,
        ctx: CallContext,
        report: Report = lambda _: None,
    ) -> Image:
        """Pull what `client` names and record it as `wanted.name`.

        It is held by the lease of the call or, without one, by one that ends with it. Raises
        NotFound for an unknown image or a platform that it does not have, DataLoss for content that
        is not what its digest says, and what else a registry or layer does wrong.
        """
        for _, snapshotter in wanted.unpack:
            if snapshotter not in self._snapshotters:
                raise InvalidArgument(f'snapshotter "{snapshotter}" is not loaded')
        tell = Throttle(report)
        # The work ends with the call, and also with the first of its parts that fails.
        work = CallContext(namespace=namespace, deadline=ctx.deadline)
        work.on_cancel(client.abort)
        ctx.on_cancel(work.cancel)
        try:
            tell(Progress(f"Resolving from {client.reference}"))
            target = client.resolve()
            tell(Progress(f"Pulling from {client.reference}"))
            with holding(self._leases, namespace, ctx.lease) as lease:
                fetcher = Fetcher(self._content, client, namespace, lease, work, tell)
                self._fetch(fetcher, target, wanted, work)
                images = [self._record(namespace, each) for each in wanted.images(target)]
        except Cancelled:
            ctx.check()
            raise
        for image in images:
            size = target.size
            tell(Progress(SAVED, image.name, size, size, target.digest, target.media_type))
        tell(Progress(f"Completed pull from {client.reference}"))
        return images[0]

    def _fetch(
        self, fetcher: Fetcher, target: Descriptor, wanted: Wanted, work: CallContext
    ) -> None:
        documents = Documents(fetcher, target)
        found = documents.choose(wanted.platforms)
        if wanted.limit:
            found = found[: wanted.limit]
        if wanted.all_metadata:
            documents.fetch_all()
        with ThreadPoolExecutor(self._layers_at_once, thread_name_prefix="layer") as pool:
            for each in found:
                snapshotters = self._snapshotters_for(each, wanted)
                for snapshotter in snapshotters:
                    self._unpack(fetcher, each, snapshotter, pool, work)
                if not snapshotters:
                    layers = each.manifest.layers
                    _finish([pool.submit(fetcher.blob, layer) for layer in layers], work)

    def _snapshotters_for(self, found: Found, wanted: Wanted) -> list[Snapshotter]:
        names = [
            name
            for where, name in wanted.unpack
            if found.config is not None and platform.rank(where, found.platform) is not None
        ]
        return [self._snapshotters[name] for name in dict.fromkeys(names)]

    def _unpack(
        self,
        fetcher: Fetcher,
        found: Found,
        snapshotter: Snapshotter,
        pool: ThreadPoolExecutor,
        work: CallContext,
    ) -> None:
        """All layers at once into private folders; then snapshots, lowest first."""
        unpacker = Unpacker(fetcher, snapshotter, self._leases, self._applier, self._forks, work)
        jobs = layer_jobs(found)
        unpacker.skip_present(jobs)
        try:
            _finish([pool.submit(unpacker.prepare, job) for job in jobs], work)
            for job in jobs:
                unpacker.commit(job)
        finally:
            unpacker.discard(jobs)
        unpacker.label_config(found.manifest.config, jobs)

    def _record(self, namespace: str, image: Image) -> Image:
        try:
            return self._images.create(namespace, image)
        except AlreadyExists:
            return self._images.update(namespace, image)


def _finish(jobs: Sequence[Future[None]], work: CallContext) -> None:
    """Wait for all jobs; the first failure stops the others and is raised."""
    done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
    failures = [error for job in done if (error := job.exception()) is not None]
    if failures:
        work.cancel()
        wait(jobs)
        # What was stopped because of another's failure says nothing.
        raise next((each for each in failures if not isinstance(each, Cancelled)), failures[0])
