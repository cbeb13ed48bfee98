"""What is reachable from a manifest or index, read from the documents themselves.

Documents never change, so what they say is kept by digest, up to a bound.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from orlop import typed
from orlop.content import ContentStore
from orlop.errors import InvalidArgument, NotFound
from orlop.oci import manifest as documents
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor

T = TypeVar("T")

DOCUMENTS = mediatypes.MANIFESTS | mediatypes.INDEXES
_KEPT = 100_000  # descriptors, of documents and of what is below roots: some 40 MB each at most
_REACH_MAX = 100_000  # descriptors below one image


class Document(msgspec.Struct, frozen=True):
    """What is needed of a manifest or index in order to serve it."""

    descriptor: Descriptor
    children: tuple[Descriptor, ...]
    subject: str
    artifact_type: str
    annotations: dict[str, str]


class _Extras(msgspec.Struct, rename="camel"):
    """What artifacts add (OCI image spec 1.1, manifest.md), and what tells documents apart."""

    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None
    config: Descriptor | None = None
    manifests: list[msgspec.Raw] | None = None
    layers: list[msgspec.Raw] | None = None


def read_document(data: bytes, media_type: str, digest: str) -> Document:
    """What a document says; "" as `media_type` goes by what it looks like.

    Raises InvalidArgument for what is neither a manifest nor an index.
    """
    try:
        extras = typed.decode(data, _Extras)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f'"{digest}" is no manifest: {error}') from None
    media_type = media_type or extras.media_type or _guess(extras)
    parsed = documents.parse(data, media_type)
    if isinstance(parsed, documents.Index):
        children = parsed.manifests
        kind = extras.artifact_type or ""
    else:
        children = (parsed.config, *parsed.layers)
        kind = extras.artifact_type or parsed.config.media_type
    return Document(
        descriptor=Descriptor(media_type=media_type, digest=digest, size=len(data)),
        children=children,
        subject=extras.subject.digest if extras.subject else "",
        artifact_type=kind,
        annotations=extras.annotations or {},
    )


def _guess(extras: _Extras) -> str:
    """OCI documents need not say what they are; Docker's do."""
    if extras.manifests is not None:
        return mediatypes.OCI_INDEX
    return mediatypes.OCI_MANIFEST if extras.layers is not None else ""


class Graph:
    """Reads the documents of one namespace."""

    def __init__(self, content: ContentStore, namespace: str) -> None:
        self._content = content
        self._namespace = namespace
        self._documents: _Kept[Document] = _Kept(_KEPT)
        self._reaches: _Kept[Mapping[str, Descriptor]] = _Kept(_KEPT)

    def document(self, digest: str, media_type: str = "") -> Document | None:
        """A stored manifest or index; None when it is not here or is none."""
        key = f"{digest} {media_type}"
        found = self._documents.get(key)
        if found is None and (found := self._read(digest, media_type)) is not None:
            self._documents.put(key, found, 1 + len(found.children))
        return found

    def _read(self, digest: str, media_type: str) -> Document | None:
        try:
            with self._content.open(self._namespace, digest) as blob:
                if blob.size > documents.DOCUMENT_MAX:
                    return None
                return read_document(blob.read_all(), media_type, digest)
        except (NotFound, InvalidArgument):
            return None

    def reach(self, root: Descriptor) -> Mapping[str, Descriptor]:
        """Everything that `root` refers to, itself included, by digest.

        Whether it is all here is another question: of an index, often one platform is.
        """
        key = f"{root.digest} {root.media_type}"
        found = self._reaches.get(key)
        if found is None:
            found, whole = self._walk(root)
            if whole:
                self._reaches.put(key, found, len(found))
        return found

    def _walk(self, root: Descriptor) -> tuple[Mapping[str, Descriptor], bool]:
        found = {root.digest: root}
        todo, whole = [root], True
        while todo and len(found) < _REACH_MAX:
            each = todo.pop()
            if each.media_type not in DOCUMENTS:
                continue
            document = self.document(each.digest, each.media_type)
            if document is None:
                whole = False
                continue
            for child in document.children:
                if child.digest not in found:
                    found[child.digest] = child
                    todo.append(child)
        return found, whole


class _Kept(Generic[T]):
    """The values used last, up to a weight: documents may be large, and anybody may write one."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, key: str) -> T | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: str, value: T, weight: int) -> None:
        with self._lock:
            if key in self._values:
                return
            self._values[key] = (value, weight)
            self._left -= weight
            while self._left < 0:
                _, (_, freed) = self._values.popitem(last=False)
                self._left += freed
