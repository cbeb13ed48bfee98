"""Manifests that are pushed, and the image records that they become."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import suppress

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.content import ContentStore
from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.images.model import Image
from orlop.images.store import ImageStore
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.origin.exchange import Refusal
from orlop.origin.graph import Document, read_document
from orlop.origin.holds import Holds
from orlop.origin.repositories import Repository
from orlop.transfer.labels import child_labels

_log = logging.getLogger(__name__)


class Pushes:
    """Takes manifests into one namespace, and takes them away."""

    def __init__(
        self, content: ContentStore, images: ImageStore, holds: Holds, namespace: str
    ) -> None:
        self._content = content
        self._images = images
        self._holds = holds
        self._namespace = namespace

    def put(
        self,
        repository: Repository,
        data: bytes,
        media_type: str,
        may_refer: Callable[[str], bool],
        *,
        tag: str = "",
        digest: str = "",
    ) -> Document:
        """Keep a manifest or index, and give it the tag if there is one.

        What it refers to must be here, and be what its sender `may_refer` to. Without a tag, a
        lease keeps it until the index comes that lists it; one with a subject is an artifact of
        its own, and gets an image record by its digest.
        """
        actual = Digest.of(data, Digest.parse(digest).algorithm if digest else "sha256")
        if digest and actual != digest:
            raise Refusal(400, "DIGEST_INVALID", f"the manifest's digest is {actual}, not {digest}")
        try:
            document = read_document(data, media_type, actual)
        except InvalidArgument as error:
            raise Refusal(400, "MANIFEST_INVALID", error.message) from None
        # Thousands of entries may name the same blob.
        for child in {(each.digest, each.size): each for each in document.children}.values():
            self._claim(repository.name, child, may_refer)
        self._store(repository.name, document, data)
        if tag or document.subject:
            name = f"{repository.name}:{tag}" if tag else f"{repository.name}@{actual}"
            self._images.put(self._namespace, Image(name, document.descriptor))
            _log.info(
                'namespace=%s pushed image "%s" with digest %s', self._namespace, name, actual
            )
        return document

    def _claim(self, repository: str, child: Descriptor, may_refer: Callable[[str], bool]) -> None:
        """Hold a child; refuses one that is not here or has another size than is said."""
        if mediatypes.is_non_distributable(child.media_type):
            return
        lease = self._holds.lease(repository)
        if not may_refer(child.digest) or not self._content.claim(
            self._namespace, child.digest, lease
        ):
            raise Refusal(
                404,
                "MANIFEST_BLOB_UNKNOWN",
                f'"{child.digest}" is not in this repository; push it before its manifest',
            )
        size = self._content.info(self._namespace, child.digest).size
        if size != child.size:
            raise Refusal(
                400, "MANIFEST_INVALID", f'"{child.digest}" has {size} bytes, not {child.size}'
            )

    def _store(self, repository: str, document: Document, data: bytes) -> None:
        target = document.descriptor
        labels = child_labels(document.children)
        # A ref of its own: two that push the same manifest do not wait for each other.
        ref = f"registry-push/{repository}/{uuid.uuid4().hex}"
        lease = self._holds.lease(repository)
        with suppress(AlreadyExists):
            with self._content.writer(
                self._namespace, ref, expected=target.digest, lease=lease
            ) as writer:
                if writer.offset != len(data):
                    writer.seek(0)
                    writer.write(data)
                writer.commit(len(data), target.digest, labels)
            return
        if labels:
            mask = FieldMask(paths=[f"labels.{key}" for key in labels])
            self._content.update(self._namespace, target.digest, labels, mask)

    def delete(self, repository: Repository, *, tag: str = "", digest: str = "") -> None:
        """Take away a tag, or a manifest with all its tags; the content is for the collector."""
        if tag:
            names = [f"{repository.name}:{tag}"] if tag in repository.tags else []
        else:
            names = [name for name, target in repository.names if target == digest]
        held = bool(digest) and self._holds.has(repository.name, digest)
        if not names and not held:
            raise Refusal(404, "MANIFEST_UNKNOWN", f'manifest "{tag or digest}" is not here')
        for name in names:
            with suppress(NotFound):
                self._images.delete(self._namespace, name)
                _log.info('namespace=%s deleted image "%s" from afar', self._namespace, name)
        if digest:
            self._holds.release(repository.name, digest)
