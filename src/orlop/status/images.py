"""What images there are, and which layers they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orlop.content import ContentStore
from orlop.errors import InvalidArgument, NotFound
from orlop.images.model import Image as Record
from orlop.images.store import ImageStore
from orlop.namespaces.store import NamespaceStore
from orlop.oci import manifest as documents
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.status.model import Image, Images, Layer

_DOCUMENTS = mediatypes.MANIFESTS | mediatypes.INDEXES
_DEPTH = 4  # indexes in indexes


class _Content(NamedTuple):
    """What an image leads to: the digests and sizes that are here, and whether something is not."""

    blobs: dict[str, int]
    layers: list[str]
    whole: bool


class ImageOverview:
    """Reads images' documents. They never change: those in use are kept from look to look."""

    def __init__(
        self, namespaces: NamespaceStore, images: ImageStore, content: ContentStore
    ) -> None:
        self._namespaces = namespaces
        self._images = images
        self._content = content
        self._known: Mapping[str, documents.Manifest | documents.Index] = {}

    def all(self) -> Images:
        """By namespace and name. To be called by one at a time."""
        reader = _Reader(self._content, self._known)
        found: list[tuple[str, Record, _Content]] = []
        for namespace in self._namespaces.list():
            here = self._content.sizes(namespace.name)
            for record in self._images.list(namespace.name):
                found.append(
                    (namespace.name, record, reader.content(namespace.name, record.target, here))
                )
        self._known = reader.used
        users = Counter(digest for _, _, each in found for digest in each.blobs)
        images = [_image(namespace, record, each, users) for namespace, record, each in found]
        layers = {
            digest: Layer(each.blobs[digest], users[digest])
            for _, _, each in found
            for digest in each.layers
        }
        sizes = {digest: size for _, _, each in found for digest, size in each.blobs.items()}
        return Images(images, layers, sum(sizes.values()))


def _image(namespace: str, record: Record, found: _Content, users: Counter[str]) -> Image:
    return Image(
        namespace=namespace,
        name=record.name,
        digest=record.target.digest,
        created=record.created_at / 1e9,
        size=sum(found.blobs.values()),
        unique=sum(size for digest, size in found.blobs.items() if users[digest] == 1),
        whole=found.whole,
        layers=found.layers,
    )


class _Reader:
    """Follows documents; `used` are those that it needed."""

    def __init__(
        self, content: ContentStore, known: Mapping[str, documents.Manifest | documents.Index]
    ) -> None:
        self._content = content
        self._known = known
        self.used: dict[str, documents.Manifest | documents.Index] = {}

    def content(self, namespace: str, target: Descriptor, here: Mapping[str, int]) -> _Content:
        """What `target` leads to, of the blobs that are `here`.

        Of an index those of its manifests count that are: often it is one.
        """
        blobs: dict[str, int] = {}
        layers: dict[str, None] = {}
        whole = False
        for manifest in self._manifests(namespace, target, here, _DEPTH, set()):
            parts = [manifest.config, *manifest.layers]
            whole = whole or all(part.digest in here for part in parts)
            for part in parts:
                if part.digest in here:
                    blobs[part.digest] = here[part.digest]
            layers.update(dict.fromkeys(e.digest for e in manifest.layers if e.digest in here))
        return _Content(blobs, list(layers), whole)

    def _manifests(
        self,
        namespace: str,
        target: Descriptor,
        here: Mapping[str, int],
        depth: int,
        walked: set[tuple[str, int]],
    ) -> Iterator[documents.Manifest]:
        """What a document leads to, each once: an index may name another thousands of times."""
        if not depth or target.digest not in here or target.media_type not in _DOCUMENTS:
            return
        if (target.digest, depth) in walked:
            return
        walked.add((target.digest, depth))
        document = self._document(namespace, target)
        if isinstance(document, documents.Manifest):
            yield document
        elif document is not None:
            for each in document.manifests:
                yield from self._manifests(namespace, each, here, depth - 1, walked)

    def _document(
        self, namespace: str, target: Descriptor
    ) -> documents.Manifest | documents.Index | None:
        found = self.used.get(target.digest) or self._known.get(target.digest)
        if found is None:
            try:
                with self._content.open(namespace, target.digest) as blob:
                    if blob.size > documents.DOCUMENT_MAX:
                        return None
                    found = documents.parse(blob.read_all(), target.media_type)
            except (NotFound, InvalidArgument, OSError):
                return None
        self.used[target.digest] = found
        return found
