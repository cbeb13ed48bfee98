"""Making an image ready to run: its layers fetched and unpacked side by side, then snapshots."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from orlop import tracing
from orlop.diff.apply import Applier
from orlop.errors import Cancelled, InvalidArgument
from orlop.fork.client import ForkServer
from orlop.leases.store import LeaseStore
from orlop.oci import platform
from orlop.oci.descriptor import Platform
from orlop.rpc import CallContext
from orlop.snapshots import Snapshotter
from orlop.tally import Timing
from orlop.transfer.documents import Found
from orlop.transfer.jobs import side_by_side
from orlop.transfer.parts import Parts
from orlop.transfer.progress import about
from orlop.transfer.unpack import LayerJob, Unpacker, layer_jobs

# What to unpack for: a platform, and the name of a snapshotter.
Target = tuple[Platform, str]


class Unpacking:
    """Brings images into the content store and the snapshotters; usable by many calls at once."""

    def __init__(
        self,
        snapshotters: Mapping[str, Snapshotter],
        leases: LeaseStore,
        applier: Applier,
        forks: ForkServer,
        *,
        layers_at_once: int = 6,
    ) -> None:
        self._applier = applier
        self._snapshotters = snapshotters
        self._leases = leases
        self._forks = forks
        self._layers_at_once = layers_at_once
        self.layers = Timing("outcome")

    def check(self, targets: Sequence[Target]) -> None:
        """Raises InvalidArgument for a snapshotter that is not there."""
        for _, snapshotter in targets:
            if snapshotter not in self._snapshotters:
                raise InvalidArgument(f'snapshotter "{snapshotter}" is not loaded')

    def bring(
        self, parts: Parts, images: Sequence[Found], targets: Sequence[Target], work: CallContext
    ) -> None:
        """Have all layers of `images`, and unpack those images that run on one of `targets`.

        The first failure cancels `work`, and is raised when everything has ended.
        """
        with ThreadPoolExecutor(self._layers_at_once, thread_name_prefix="layer") as pool:
            for each in images:
                snapshotters = self._for(each, targets)
                for snapshotter in snapshotters:
                    self._unpack(parts, each, snapshotter, pool, work)
                if not snapshotters:
                    side_by_side(pool, parts.blob, each.manifest.layers, work)

    def _for(self, found: Found, targets: Sequence[Target]) -> list[Snapshotter]:
        names = [
            name
            for where, name in targets
            if found.config is not None and platform.rank(where, found.platform) is not None
        ]
        return [self._snapshotters[name] for name in dict.fromkeys(names)]

    def _unpack(
        self,
        parts: Parts,
        found: Found,
        snapshotter: Snapshotter,
        pool: ThreadPoolExecutor,
        work: CallContext,
    ) -> None:
        """All layers at once into private folders; then snapshots, lowest first."""
        unpacker = Unpacker(
            parts, found.descriptor, snapshotter, self._leases, self._applier, self._forks, work
        )
        jobs = layer_jobs(found, self._applier.processors.takes)
        unpacker.skip_present(jobs)
        try:
            unpacker.ask(jobs)
            side_by_side(pool, partial(self._prepare, unpacker), jobs, work)
            unpacker.sync(jobs)
            for job in jobs:
                unpacker.commit(job)
        finally:
            unpacker.discard(jobs)
        unpacker.label_config(found.manifest.config, jobs)

    def _prepare(self, unpacker: Unpacker, job: LayerJob) -> None:
        began, outcome = time.perf_counter(), "failed"
        try:
            with tracing.span("layer", about(job.layer)):
                unpacker.prepare(job)
            outcome = "present" if job.skip else "done"
        except Cancelled:
            outcome = "cancelled"
            raise
        finally:
            self.layers.observe(time.perf_counter() - began, outcome)
