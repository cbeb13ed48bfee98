"""Pull: resolve, fetch the documents, then all layers at once; the image record comes last.

Everything is under a lease from the first byte. Whatever fails, what was fetched stays as blobs or
resumable ingests under that lease's end, and no snapshot is half-made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orlop.content import ContentStore
from orlop.diff import Applier
from orlop.errors import AlreadyExists, Cancelled, InvalidArgument, NotFound
from orlop.fork.client import ForkServer
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.chain import chain_ids
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import ImageConfig, Index, Manifest
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.snapshots import Snapshotter
from orlop.transfer.fetch import Fetcher
from orlop.transfer.labels import child_labels
from orlop.transfer.progress import Progress, Report, Throttle
from orlop.transfer.unpack import LayerJob, Unpacker

_LEASE_LIFE = timedelta(hours=24)
_EXPIRE = "containerd.io/gc.expire"
_SNAPSHOT_REF = "containerd.io/gc.ref.snapshot."
_DEPTH = 4  # indexes in indexes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to pull, and what to make of it.

    `platforms` empty means all that the image has. `unpack` maps platforms to the snapshotters that
    they are unpacked for.
    """

    name: str
    platforms: Sequence[Platform] = ()
    unpack: Sequence[tuple[Platform, str]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """One platform's manifest, with its descriptor and config."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    platform: Platform | None


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

        Raises NotFound for an unknown image or a platform that it does not have, DataLoss for
        content that is not what its digest says, and what else a registry or layer does wrong.
        """
        for _, snapshotter in wanted.unpack:
            if snapshotter not in self._snapshotters:
                raise InvalidArgument(f'snapshotter "{snapshotter}" is not loaded')
        tell = Throttle(report)
        tell(Progress(f"Resolving from {client.reference}"))
        target = client.resolve()
        tell(Progress(f"Pulling from {client.reference}"))
        with self._lease(namespace) as lease:
            fetcher = Fetcher(self._content, client, namespace, lease, ctx, tell)
            found = self._documents(fetcher, target, wanted.platforms)
            self._layers(fetcher, found, wanted, ctx)
            image = self._record(namespace, Image(wanted.name, target, wanted.labels))
        tell(Progress(f"Completed pull from {client.reference}"))
        return image

    @contextmanager
    def _lease(self, namespace: str) -> Iterator[str]:
        expires = (datetime.now(UTC) + _LEASE_LIFE).isoformat(timespec="seconds")
        lease = self._leases.create(namespace, "", {_EXPIRE: expires})
        try:
            yield lease.id
        finally:
            self._leases.delete(namespace, lease.id)

    def _documents(
        self, fetcher: Fetcher, target: Descriptor, platforms: Sequence[Platform]
    ) -> list[_Found]:
        """The manifests that are wanted, with their configs, fetched and stored."""
        chosen = [
            found
            for descriptor in self._manifests(fetcher, target, platforms, _DEPTH)
            if (found := self._load(fetcher, descriptor, platforms)) is not None
        ]
        if not chosen:
            names = ", ".join(platform.text(each) for each in platforms) or "any platform"
            raise NotFound(f'platform {names} in image "{fetcher.reference}"')
        return chosen

    def _manifests(
        self, fetcher: Fetcher, target: Descriptor, platforms: Sequence[Platform], depth: int
    ) -> list[Descriptor]:
        """The manifests below `target` that serve the platforms best."""
        if target.media_type in mediatypes.MANIFESTS:
            return [target]
        if target.media_type not in mediatypes.INDEXES:
            raise InvalidArgument(
                f'"{fetcher.reference}" is of media type "{target.media_type}", '
                "neither an image manifest nor an index"
            )
        if not depth:
            raise InvalidArgument(f'"{fetcher.reference}" nests indexes too deeply')
        index = documents.parse(fetcher.document(target), target.media_type)
        assert isinstance(index, Index)
        fetcher.label(target, child_labels(index.manifests))
        children = [child for child in index.manifests if not _is_attestation(child)]
        picked = _pick(children, platforms)
        return [
            descriptor
            for child in picked
            for descriptor in self._manifests(fetcher, child, platforms, depth - 1)
        ]

    def _load(
        self, fetcher: Fetcher, descriptor: Descriptor, platforms: Sequence[Platform]
    ) -> _Found | None:
        """A manifest and its config; None when it turns out to be for another platform."""
        manifest = documents.parse(fetcher.document(descriptor), descriptor.media_type)
        assert isinstance(manifest, Manifest)
        config = ImageConfig()
        is_image = manifest.config.media_type in mediatypes.CONFIGS
        data = fetcher.document(manifest.config)
        if is_image:
            config = documents.parse_config(data)
        offered = descriptor.platform or (config.platform if config.os else None)
        if platforms and all(platform.rank(each, offered) is None for each in platforms):
            return None
        fetcher.label(descriptor, child_labels((manifest.config, *manifest.layers)))
        return _Found(descriptor, manifest, config, offered)

    def _layers(
        self, fetcher: Fetcher, found: Sequence[_Found], wanted: Wanted, ctx: CallContext
    ) -> None:
        stop = threading.Event()
        ctx.on_cancel(stop.set)
        with ThreadPoolExecutor(self._layers_at_once, thread_name_prefix="layer") as pool:
            for each in found:
                snapshotter = self._snapshotter_for(each, wanted)
                if snapshotter is None:
                    self._fetch_only(fetcher, each, pool, stop)
                else:
                    self._unpack(fetcher, each, snapshotter, pool, stop, ctx)

    def _snapshotter_for(self, found: _Found, wanted: Wanted) -> Snapshotter | None:
        for where, name in wanted.unpack:
            if platform.rank(where, found.platform) is not None:
                return self._snapshotters[name]
        return None

    @staticmethod
    def _fetch_only(
        fetcher: Fetcher, found: _Found, pool: ThreadPoolExecutor, stop: threading.Event
    ) -> None:
        jobs = [pool.submit(fetcher.blob, layer, stop) for layer in found.manifest.layers]
        _finish(jobs, stop)

    def _unpack(
        self,
        fetcher: Fetcher,
        found: _Found,
        snapshotter: Snapshotter,
        pool: ThreadPoolExecutor,
        stop: threading.Event,
        ctx: CallContext,
    ) -> None:
        """All layers at once into private folders; then snapshots, lowest first."""
        layers = [layer for layer in found.manifest.layers if mediatypes.is_layer(layer.media_type)]
        diff_ids = found.config.rootfs.diff_ids
        if len(layers) != len(diff_ids) or len(layers) != len(found.manifest.layers):
            raise InvalidArgument(
                f"manifest {found.descriptor.digest} has {len(found.manifest.layers)} layers, "
                f"{len(layers)} of them to unpack, but its config has {len(diff_ids)} diff IDs"
            )
        unpacker = Unpacker(fetcher, snapshotter, self._applier, self._forks, ctx)
        chains = chain_ids(diff_ids)
        present = unpacker.present(chains)
        jobs = [
            LayerJob(layer, diff_id, chain, chains[n - 1] if n else "", skip=n < present)
            for n, (layer, diff_id, chain) in enumerate(zip(layers, diff_ids, chains, strict=True))
        ]
        try:
            _finish([pool.submit(unpacker.prepare, job, stop) for job in jobs], stop)
            for job in jobs:
                unpacker.commit(job)
        finally:
            unpacker.discard(jobs)
        if chains:
            key = _SNAPSHOT_REF + snapshotter.name
            fetcher.label(found.manifest.config, {key: chains[-1]})

    def _record(self, namespace: str, image: Image) -> Image:
        try:
            return self._images.create(namespace, image)
        except AlreadyExists:
            return self._images.update(namespace, image)


def _pick(children: Sequence[Descriptor], platforms: Sequence[Platform]) -> list[Descriptor]:
    """The child that serves each platform best, all of them when none is named."""
    if not platforms:
        return list(children)
    picked: list[Descriptor] = []
    for wanted in platforms:
        best = platform.best(wanted, ((child.platform, child) for child in children))
        if best is not None and best not in picked:
            picked.append(best)
    return picked


def _is_attestation(child: Descriptor) -> bool:
    """Attestations ride along in indexes as images of no platform."""
    offered = child.platform
    return offered is not None and (offered.os, offered.architecture) == ("unknown", "unknown")


def _finish(jobs: Sequence[Future[None]], stop: threading.Event) -> None:
    """Wait for all jobs; the first failure stops the others and is raised."""
    failure: BaseException | None = None
    for job in jobs:
        try:
            job.result()
        except BaseException as error:  # noqa: BLE001 - raised below, when all have ended
            stop.set()
            # What was stopped because of another's failure says nothing.
            if failure is None or isinstance(failure, Cancelled):
                failure = error
    if failure is not None:
        raise failure
