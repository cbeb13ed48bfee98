"""What an import has: what the archive brought, and what was in the store before."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.content import ContentStore, ContentWriter, Locked
from orlop.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    Internal,
    NotFound,
)
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.oci.manifest import DOCUMENT_MAX
from orlop.rpc import CallContext
from orlop.transfer.labels import child_labels, ref_key
from orlop.transfer.progress import Progress, Report


class StoredParts:
    """Parts of images (see `orlop.transfer.parts`) that are in the store, or are nowhere."""

    image = ""

    def __init__(
        self,
        content: ContentStore,
        namespace: str,
        lease: str,
        ctx: CallContext,
        tell: Report,
    ) -> None:
        self.content = content
        self.namespace = namespace
        self.lease = lease
        self.tell = tell
        self._ctx = ctx
        self._ingest = f"import-{secrets.token_hex(8)}"
        self._count = 0
        self._claimed: dict[str, int] = {}

    # Into the store

    def put(
        self,
        pieces: Iterable[bytes | memoryview],
        *,
        size: int = 0,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
        name: str = "",
    ) -> str:
        """Store a blob, unless it is there, and return its digest.

        `size` (bytes) and `expected` are what it must be; without them it may be anything. `name`
        is for errors. Nothing of a write that fails stays. Raises DataLoss when it is something
        else.
        """
        try:
            with self._writing(size, expected) as writer:
                there = expected and (writer.offset, writer.digest()) == (size, expected)
                if not there:
                    writer.seek(0)
                    self._fill(writer, pieces)
                digest = writer.digest()
                writer.commit(size, expected, labels)
        except AlreadyExists:
            if not expected:
                return digest
            self.blob(Descriptor(media_type="", digest=expected, size=size))
        except FailedPrecondition as error:
            raise DataLoss(f'"{name}" is not what its name says: {error.message}') from error
        return expected or digest

    @contextmanager
    def _writing(self, size: int, expected: str) -> Iterator[ContentWriter]:
        """A writer whose data goes when something goes wrong."""
        with self._open(size, expected) as writer:
            try:
                yield writer
            except AlreadyExists:
                raise
            except BaseException:
                self._abort(writer.ref)
                raise

    def hold(self, pieces: Iterable[bytes | memoryview]) -> ContentWriter:
        """Write what may become a blob: the caller commits it, or closes and aborts it."""
        writer = self._open()
        try:
            self._fill(writer, pieces)
        except BaseException:
            self._abort(writer.ref)
            writer.close()
            raise
        return writer

    def _open(self, size: int = 0, expected: str = "") -> ContentWriter:
        """A writer; for a known digest the one that a killed import may have left behind."""
        if expected:
            with suppress(Locked):  # another import of the same is at it
                return self._writer(f"import-{expected}", size, expected)
        self._count += 1
        return self._writer(f"{self._ingest}-{self._count}", size, expected)

    def _writer(self, ref: str, size: int, expected: str) -> ContentWriter:
        return self.content.writer(
            self.namespace, ref, total=size, expected=expected, lease=self.lease
        )

    def _fill(self, writer: ContentWriter, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self._ctx.check()
            writer.write(piece)

    def _abort(self, ref: str) -> None:
        with suppress(NotFound):
            self.content.abort(self.namespace, ref)

    def put_document(self, data: bytes, media_type: str) -> Descriptor:
        digest = self.put([data], size=len(data), expected=Digest.of(data))
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def adopt(self, parent: Descriptor, children: Sequence[Descriptor]) -> None:
        """Say of a stored document what it refers to."""
        self.label(parent, child_labels(children))

    # Out of the store

    def has(self, wanted: Descriptor) -> bool:
        """Whether a blob is there; the lease then holds it. DataLoss for one of another size."""
        digest = Digest.parse(wanted.digest)
        if digest not in self._claimed:
            if not self.content.claim(self.namespace, digest, self.lease):
                return False
            self._claimed[digest] = self.content.info(self.namespace, digest).size
        size = self._claimed[digest]
        if size != wanted.size:
            raise DataLoss(f"{digest} has {size} bytes, {wanted.size} were announced")
        return True

    def document(self, wanted: Descriptor) -> bytes:
        """A manifest, index or config; NotFound, or DataLoss for one that is too large."""
        self._ctx.check()
        if wanted.size > DOCUMENT_MAX:
            raise DataLoss(f"document {wanted.digest} of {wanted.size} bytes is too large")
        self.blob(wanted)
        return self.content.read(self.namespace, wanted.digest)

    def blob(self, wanted: Descriptor) -> None:
        """Raises NotFound, but not for a layer that archives may leave out."""
        if not self.has(wanted) and not mediatypes.is_non_distributable(wanted.media_type):
            raise NotFound(f'content "{wanted.digest}" is missing in the archive')

    def writer(self, wanted: Descriptor) -> AbstractContextManager[ContentWriter | None]:
        self.blob(wanted)
        return nullcontext()

    def download(self, writer: ContentWriter, wanted: Descriptor, told: Callable[[], None]) -> None:
        raise Internal(f"there is nowhere to get {wanted.digest} from")

    def commit(self, writer: ContentWriter, wanted: Descriptor) -> None:
        raise Internal(f"{wanted.digest} is not being written")

    def label(self, wanted: Descriptor, labels: Mapping[str, str]) -> None:
        mask = FieldMask(paths=[f"labels.{key}" for key in labels])
        if labels:
            self.content.update(self.namespace, wanted.digest, labels, mask)

    def say(self, event: str, wanted: Descriptor, done: int) -> None:
        self.tell(
            Progress(event, ref_key(wanted), done, wanted.size, wanted.digest, wanted.media_type)
        )
