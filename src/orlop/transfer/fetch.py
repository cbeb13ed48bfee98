"""From a registry into the content store: documents whole, blobs as streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from google.protobuf.field_mask_pb2 import FieldMask

from orlop import tracing
from orlop.content import ContentStore, ContentWriter, Locked
from orlop.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
)
from orlop.oci.descriptor import Descriptor
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.registry import RegistryClient
from orlop.rpc import CallContext
from orlop.transfer.labels import child_labels, ref_key, source_labels
from orlop.transfer.progress import COMPLETE, DOWNLOADING, EXISTS, WAITING, Progress, Report, about

_LOCK_POLL = 0.05


class SpoiledIngest(DataLoss):
    """What an earlier fetch had left, or one host sent, was damaged. It is dropped: another try
    begins anew, or with another host."""


def until_sound(attempt: Callable[[], None], undo: Callable[[], None] = lambda: None) -> None:
    """Attempt it, and again as long as what came was spoiled, but may be had otherwise."""
    while True:
        try:
            attempt()
        except SpoiledIngest:
            undo()
        else:
            return


class Fetcher:
    """Fetches the parts of one image into one namespace, under one lease."""

    def __init__(
        self,
        content: ContentStore,
        client: RegistryClient,
        namespace: str,
        lease: str,
        ctx: CallContext,
        tell: Report,
        fetched: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._fetched = fetched  # told of bytes as they come
        self.content = content
        self.client = client
        self.namespace = namespace
        self.lease = lease
        self.tell = tell
        self._ctx = ctx
        self._parents: dict[str, tuple[str, ...]] = {}

    @property
    def reference(self) -> str:
        return str(self.client.reference)

    @property
    def image(self) -> str:
        return self.reference

    def document(self, wanted: Descriptor) -> bytes:
        """A manifest, index or config: from the store, else from the registry into the store."""
        with tracing.span("fetch", about(wanted)):
            return self._document(wanted)

    def _document(self, wanted: Descriptor) -> bytes:
        if wanted.size > DOCUMENT_MAX:
            raise InvalidArgument(f"document {wanted.digest} of {wanted.size} bytes is too large")
        self._ctx.check()
        if self.content.claim(self.namespace, wanted.digest, self.lease):
            self._check_size(wanted)
            self.say(EXISTS, wanted, wanted.size)
            return self.content.read(self.namespace, wanted.digest)
        self.say(DOWNLOADING, wanted, 0)
        data = self.client.fetch_document(wanted)
        self._fetched(len(data))
        with self.writer(wanted) as writer:
            if writer is not None:
                if writer.digest() != wanted.digest:  # as what an earlier fetch left may be
                    writer.seek(0)
                    writer.write(data)
                self.commit(writer, wanted)
        self.say(COMPLETE, wanted, wanted.size)
        return data

    def _check_size(self, wanted: Descriptor) -> None:
        """What is here may be another size than the descriptor says, and far too large to read."""
        size = self.content.info(self.namespace, wanted.digest).size
        if size != wanted.size:
            raise DataLoss(f"{wanted.digest} has {size} bytes, {wanted.size} were announced")

    def blob(self, wanted: Descriptor) -> None:
        """Fetch a blob into the store, unless it is there."""
        with tracing.span("fetch", about(wanted)):
            until_sound(lambda: self._blob(wanted))

    def _blob(self, wanted: Descriptor) -> None:
        with self.writer(wanted) as writer:
            if writer is None:
                self.say(EXISTS, wanted, wanted.size)
                return
            self.download(writer, wanted, lambda: None)
            self.commit(writer, wanted)
        self.say(COMPLETE, wanted, wanted.size)

    def writer(self, wanted: Descriptor) -> _MaybeWriter:
        """A writer for the blob, or None when it is there; waits while another pull fetches it."""
        ref = ref_key(wanted)
        self.say(WAITING, wanted, 0)
        while True:
            try:
                made = self.content.writer(
                    self.namespace,
                    ref,
                    total=wanted.size,
                    expected=wanted.digest,
                    lease=self.lease,
                )
            except AlreadyExists:
                self.label_source(wanted)
                return _MaybeWriter(None)
            except Locked:
                self._ctx.check()
                time.sleep(_LOCK_POLL)
                continue
            return _MaybeWriter(made)

    def download(
        self,
        writer: ContentWriter,
        wanted: Descriptor,
        told: Callable[[], None],
    ) -> None:
        """Append what is missing of a blob; `told` is called after each piece."""
        with closing(self.client.open_blob(wanted, writer.offset)) as stream:
            for chunk in stream:
                self._ctx.check()
                writer.write(chunk)
                self._fetched(len(chunk))
                told()
                self.say(DOWNLOADING, wanted, writer.offset)

    def commit(self, writer: ContentWriter, wanted: Descriptor) -> None:
        """Verify and keep a blob; DataLoss, and the data dropped, when it is not what was named.

        SpoiledIngest where some of the data is of an earlier fetch, or another host can be asked.
        """
        labels = source_labels(self.client.reference.host, self.client.reference.path, {})
        try:
            writer.commit(wanted.size, wanted.digest, labels)
        except AlreadyExists:
            self.label_source(wanted)
        except FailedPrecondition as error:
            # Unless somebody has just gone on with it, and will find the same.
            self.content.collect_ingests([(self.namespace, writer.ref)], lambda *_: True)
            again = writer.resumed or self.client.spoiled(wanted)
            kind = SpoiledIngest if again else DataLoss
            raise kind(
                f'registry "{self.client.reference.host}" sent damaged content: {error.message}'
            ) from error

    def label(self, wanted: Descriptor, labels: Mapping[str, str]) -> None:
        """Set some labels of a blob, leaving the others."""
        mask = FieldMask(paths=[f"labels.{key}" for key in labels])
        if labels:
            self.content.update(self.namespace, wanted.digest, labels, mask)

    def label_source(self, wanted: Descriptor) -> None:
        reference = self.client.reference
        before = self.content.info(self.namespace, wanted.digest).labels
        self.label(wanted, source_labels(reference.host, reference.path, before))

    def adopt(self, parent: Descriptor, children: Sequence[Descriptor]) -> None:
        """Say of a stored document what it refers to."""
        key = ref_key(parent)
        for child in children:
            known = self._parents.get(child.digest, ())
            if key not in known:  # one may be named many times
                self._parents[child.digest] = (*known, key)
        self.label(parent, child_labels(children))

    def say(self, event: str, wanted: Descriptor, done: int) -> None:
        """Report the state of an object, of which `done` bytes are here."""
        self.tell(
            Progress(
                event,
                ref_key(wanted),
                done,
                wanted.size,
                wanted.digest,
                wanted.media_type,
                self._parents.get(wanted.digest, ()),
            )
        )


class _MaybeWriter:
    """A writer to be closed, or None."""

    def __init__(self, writer: ContentWriter | None) -> None:
        self._writer = writer

    def __enter__(self) -> ContentWriter | None:
        return self._writer

    def __exit__(self, *details: object) -> None:
        if self._writer is not None:
            self._writer.close()
