"""What of some images goes into an archive: all that their documents name, for some platforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orlop.content import ContentStore
from orlop.errors import InvalidArgument, NotFound
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import DOCUMENT_MAX, Index, Manifest

_DEPTH = 4  # indexes in indexes


@dataclass(frozen=True, slots=True)
class Runnable:
    """The digests of an image that docker could run."""

    digest: str
    config: str
    layers: tuple[str, ...]


class Selection:
    """Collects blobs; `platforms` empty means all. A lease holds what is selected."""

    def __init__(
        self,
        content: ContentStore,
        namespace: str,
        lease: str,
        platforms: Sequence[Platform],
        *,
        skip_non_distributable: bool = False,
    ) -> None:
        self.blobs: dict[str, int] = {}
        self._walked: set[str] = set()
        self._content = content
        self._namespace = namespace
        self._lease = lease
        self._platforms = platforms
        self._skip = skip_non_distributable

    def add(self, target: Descriptor) -> Runnable | None:
        """Select an image, and say which of its platforms docker is to load, if any.

        Raises NotFound for content that is not here or a platform that the image does not have.
        """
        if target.media_type in mediatypes.MANIFESTS:
            return self._manifest(target)
        if target.media_type not in mediatypes.INDEXES:
            raise InvalidArgument(
                f'{target.digest} is of media type "{target.media_type}", neither an image '
                "manifest nor an index"
            )
        index = self._index(target)
        best = self._best(index)
        for child in index.manifests:
            if not self._platforms or child.platform is None or child in best:
                self._whole(child, _DEPTH)
        preferred = best or self._for_here(index)
        first = next(iter(preferred), None)
        if first is None or first.media_type not in mediatypes.MANIFESTS:
            return None
        return self._manifest(first)

    def _best(self, index: Index) -> list[Descriptor]:
        """The image of each wanted platform."""
        offers = [(child.platform, child) for child in index.manifests]
        found = [platform.best(where, offers) for where in self._platforms]
        best = [each for each in found if each is not None]
        if self._platforms and not best:
            texts = ", ".join(platform.text(each) for each in self._platforms)
            raise NotFound(f"platform {texts} in the image; choose another platform, or all")
        return best

    @staticmethod
    def _for_here(index: Index) -> list[Descriptor]:
        offers = [(child.platform, child) for child in index.manifests]
        best = platform.best(platform.host(), offers)
        return [] if best is None else [best]

    def _whole(self, target: Descriptor, depth: int) -> None:
        """A descriptor and all that it leads to."""
        if target.media_type in mediatypes.MANIFESTS:
            self._manifest(target)
        elif target.media_type in mediatypes.INDEXES:
            if target.digest in self._walked:
                return
            if not depth:
                raise InvalidArgument("image nests indexes too deeply")
            self._walked.add(target.digest)
            for child in self._index(target).manifests:
                self._whole(child, depth - 1)
        else:
            self._blob(target)

    def _index(self, target: Descriptor) -> Index:
        found = documents.parse(self._document(target), target.media_type)
        assert isinstance(found, Index)
        return found

    def _manifest(self, target: Descriptor) -> Runnable | None:
        found = documents.parse(self._document(target), target.media_type)
        assert isinstance(found, Manifest)
        for part in (found.config, *found.layers):
            self._blob(part)
        if found.config.media_type not in mediatypes.CONFIGS:
            return None
        layers = tuple(layer.digest for layer in found.layers)
        return Runnable(target.digest, found.config.digest, layers)

    def _document(self, target: Descriptor) -> bytes:
        self._blob(target)
        if self.blobs[target.digest] > DOCUMENT_MAX:
            raise InvalidArgument(f"document {target.digest} is larger than {DOCUMENT_MAX} bytes")
        return self._content.read(self._namespace, target.digest)

    def _blob(self, found: Descriptor) -> None:
        if self._skip and mediatypes.is_non_distributable(found.media_type):
            return
        if found.digest in self.blobs:
            return
        if not self._content.claim(self._namespace, found.digest, self._lease):
            raise NotFound(
                f'content "{found.digest}" of the image is not here: pull it, for all platforms '
                "that are to be exported"
            )
        self.blobs[found.digest] = self._content.info(self._namespace, found.digest).size
