"""Push: an image from the store into a registry.

Blobs go side by side; then the documents, children before parents, so that the registry never has
a name for what it does not have. What a push that failed has brought is found there by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from google.protobuf.field_mask_pb2 import FieldMask

from orlop import tracing
from orlop.content import ContentStore
from orlop.errors import Cancelled, DataLoss, InvalidArgument, NotFound
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.leases.store import LeaseStore
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import Index, Manifest, parse
from orlop.registry import RegistryClient, Uploads
from orlop.rpc import CallContext
from orlop.transfer.jobs import side_by_side
from orlop.transfer.labels import ref_key, source_labels, source_repositories
from orlop.transfer.lease import holding
from orlop.transfer.plan import Document, Plan, Planner
from orlop.transfer.progress import (
    COMPLETE,
    EXISTS,
    UPLOADING,
    WAITING,
    Progress,
    Report,
    Throttle,
    about,
)


class Pusher:
    """Pushes images from the stores that it is given; usable by many calls at once."""

    def __init__(
        self,
        content: ContentStore,
        images: ImageStore,
        leases: LeaseStore,
        *,
        blobs_at_once: int = 4,
    ) -> None:
        self._content = content
        self._images = images
        self._leases = leases
        self._blobs_at_once = blobs_at_once

    def push(
        self,
        namespace: str,
        name: str,
        client: RegistryClient,
        platforms: Sequence[Platform],
        ctx: CallContext,
        report: Report = lambda _: None,
    ) -> Descriptor:
        """Push the image `name` to what `client` names; what stands there now.

        `platforms` empty pushes all of it. Raises NotFound for an unknown image, or one of which
        something is not here, and what the registry refuses with.
        """
        image = self._images.get(namespace, name)
        work = CallContext(namespace=namespace, deadline=ctx.deadline)
        work.on_cancel(client.abort)
        ctx.on_cancel(work.cancel)
        try:
            with (
                tracing.span("push", {"orlop.image": name, "orlop.namespace": namespace}),
                holding(self._leases, namespace, ctx.lease) as lease,
            ):
                planner = Planner(self._content, namespace, lease)
                plan = planner.plan(name, image.target, platforms)
                _Push(self._content, namespace, client, plan, work, Throttle(report)).run(
                    image, self._blobs_at_once
                )
        except Cancelled:
            ctx.check()
            raise
        return plan.target


class _Push:
    """One push."""

    def __init__(
        self,
        content: ContentStore,
        namespace: str,
        client: RegistryClient,
        plan: Plan,
        work: CallContext,
        tell: Report,
    ) -> None:
        self._content = content
        self._namespace = namespace
        self._reference = client.reference
        self._uploads: Uploads = client.uploads()
        self._plan = plan
        self._work = work
        self._tell = tell

    def run(self, image: Image, at_once: int) -> None:
        root = self._plan.target
        name = self._reference.tag or root.digest
        if self._reference.digest and self._reference.digest != root.digest:
            raise InvalidArgument(
                f'image "{image.name}" is {root.digest}, and cannot be pushed as '
                f'"{self._reference}"'
            )
        self._tell(Progress(f"Pushing to {self._reference}"))
        for part in (*self._plan.blobs.values(), *self._documents()):
            self._say(WAITING, part, 0)
        with ThreadPoolExecutor(at_once, thread_name_prefix="push") as pool:
            side_by_side(pool, self._upload, list(self._plan.blobs.values()), self._work)
        for document in self._plan.documents.values():
            self._put(document, name if document.descriptor is root else "")
        self._tell(Progress(f"Completed push to {self._reference}"))

    def _documents(self) -> list[Descriptor]:
        return [each.descriptor for each in self._plan.documents.values()]

    def _upload(self, blob: Descriptor) -> None:
        with tracing.span("upload", about(blob)):
            self._blob(blob)

    def _blob(self, blob: Descriptor) -> None:
        self._work.check()
        labels = self._content.info(self._namespace, blob.digest).labels
        known = source_repositories(self._reference.host, labels)
        others = [each for each in known if each != self._reference.path]
        with self._content.open(self._namespace, blob.digest) as found:
            if found.size != blob.size:
                raise DataLoss(f"{blob.digest} has {found.size} bytes, {blob.size} were announced")
            outcome = self._uploads.blob(
                blob,
                found.fd,
                mount=others[0] if others else "",
                sent=lambda count: self._say(UPLOADING, blob, count),
            )
        self._note_source(blob)
        self._say(outcome, blob, blob.size)

    def _put(self, document: Document, name: str) -> None:
        """Put a document under `name`, "" for its digest."""
        self._work.check()
        with tracing.span("upload", about(document.descriptor)):
            self._put_document(document, name)

    def _put_document(self, document: Document, name: str) -> None:
        descriptor = document.descriptor
        name = name or descriptor.digest
        if self._uploads.has_manifest(name, descriptor):
            self._say(EXISTS, descriptor, descriptor.size)
            return
        listed = self._uploads.manifest(name, document.data, descriptor.media_type)
        if document.content.subject is not None and not listed:
            self._refer(document, document.content.subject)
        self._note_source(descriptor)
        self._say(COMPLETE, descriptor, descriptor.size)

    def _refer(self, document: Document, subject: Descriptor) -> None:
        """For a registry without the referrers API: list them under a tag.

        See the distribution spec 1.1, "Pushing Manifests with Subject", the fallback tag schema.
        """
        tag = subject.digest.replace(":", "-", 1)
        before = self._uploads.document(tag, mediatypes.OCI_INDEX)
        listed: tuple[Descriptor, ...] = ()
        if before is not None:
            index = parse(before, mediatypes.OCI_INDEX)
            assert isinstance(index, Index)
            listed = index.manifests
        if any(each.digest == document.descriptor.digest for each in listed):
            return
        content = document.content
        kind = content.artifact_type
        if not kind and isinstance(content, Manifest):
            kind = content.config.media_type
        entry = Descriptor(
            media_type=document.descriptor.media_type,
            digest=document.descriptor.digest,
            size=document.descriptor.size,
            artifact_type=kind,
            annotations=content.annotations,
        )
        data = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_INDEX,
                "manifests": [*listed, entry],
            }
        )
        self._uploads.manifest(tag, data, mediatypes.OCI_INDEX)

    def _note_source(self, part: Descriptor) -> None:
        """It is in that repository now, and can be mounted from there."""
        try:
            before = self._content.info(self._namespace, part.digest).labels
            labels = source_labels(self._reference.host, self._reference.path, before)
            mask = FieldMask(paths=[f"labels.{key}" for key in labels])
            if labels:
                self._content.update(self._namespace, part.digest, labels, mask)
        except NotFound:
            pass  # deleted meanwhile: it is pushed all the same

    def _say(self, event: str, part: Descriptor, done: int) -> None:
        self._tell(Progress(event, ref_key(part), done, part.size, part.digest, part.media_type))
