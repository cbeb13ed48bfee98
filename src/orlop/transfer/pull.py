"""Pull: resolve, fetch the documents, then all layers at once; the image record comes last.

Everything is under a lease from the first byte. After a failure that may pass, what was fetched
stays for an hour as blobs or resumable ingests; no snapshot is half-made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orlop import tracing
from orlop.content import ContentStore
from orlop.errors import Cancelled, OrlopError
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci.descriptor import Descriptor, Platform
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.tally import Counter, Timing
from orlop.transfer.documents import Documents
from orlop.transfer.fetch import Fetcher
from orlop.transfer.lease import holding
from orlop.transfer.progress import SAVED, Progress, Report, Throttle, about
from orlop.transfer.underway import Underway
from orlop.transfer.unpacking import Unpacking
from orlop.trust import Gate


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
        unpacking: Unpacking,
        gate: Gate | None = None,
    ) -> None:
        self._content = content
        self._images = images
        self._leases = leases
        self._unpacking = unpacking
        self._gate = gate
        self.pulls = Timing("outcome")
        self.fetched = Counter()
        self.underway = Underway()

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
        is not what its digest says, PermissionDenied for what a policy or an image verifier
        rejects, and what else a registry or layer does wrong.
        """
        began, outcome = time.perf_counter(), "failed"
        try:
            with (
                tracing.span("pull", {"orlop.image": wanted.name, "orlop.namespace": namespace}),
                self.underway.following(namespace, wanted.name, report) as told,
            ):
                image = self._pull(namespace, client, wanted, ctx, told)
            outcome = "done"
        except Cancelled:
            outcome = "cancelled"
            raise
        finally:
            self.pulls.observe(time.perf_counter() - began, outcome)
        return image

    def _pull(
        self,
        namespace: str,
        client: RegistryClient,
        wanted: Wanted,
        ctx: CallContext,
        report: Report,
    ) -> Image:
        self._unpacking.check(wanted.unpack)
        tell = Throttle(report)
        # The work ends with the call, and also with the first of its parts that fails.
        work = CallContext(namespace=namespace, deadline=ctx.deadline)
        work.on_cancel(client.abort)
        ctx.on_cancel(work.cancel)
        try:
            tell(Progress(f"Resolving from {client.reference}"))
            with tracing.span("resolve", {"orlop.image": str(client.reference)}) as span:
                target = client.resolve()
                span.set(about(target))
            if self._gate is not None:
                with tracing.span("verify", about(target)):
                    self._gate.check(client, target, work)
            tell(Progress(f"Pulling from {client.reference}"))
            with holding(self._leases, namespace, ctx.lease, patient=True) as lease:
                fetcher = Fetcher(self._content, client, namespace, lease, work, tell, self._count)
                self._fetch(fetcher, target, wanted, work)
                images = [self._images.put(namespace, each) for each in wanted.images(target)]
        except Cancelled:
            ctx.check()
            raise
        except OrlopError as error:
            if client.reference.host in error.message:
                raise
            raise type(error)(f'image "{client.reference}": {error.message}') from error
        for image in images:
            size = target.size
            tell(Progress(SAVED, image.name, size, size, target.digest, target.media_type))
        tell(Progress(f"Completed pull from {client.reference}"))
        return images[0]

    def _count(self, size: int) -> None:
        self.fetched.add(by=size)

    def _fetch(
        self, fetcher: Fetcher, target: Descriptor, wanted: Wanted, work: CallContext
    ) -> None:
        documents = Documents(fetcher, target)
        found = documents.choose(wanted.platforms)
        if wanted.limit:
            found = found[: wanted.limit]
        if wanted.all_metadata:
            documents.fetch_all()
        self._unpacking.bring(fetcher, found, wanted.unpack, work)
