"""Which images of an archive are wanted and whole, and what refers to what."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.errors import InvalidArgument, NotFound, ResourceExhausted
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import Index, Manifest
from orlop.transfer.archive.stored import StoredParts
from orlop.transfer.documents import Found, Room

_DEPTH = 4  # indexes in indexes
_DOCUMENTS_MAX = 10_000

# By digest.
_Images = dict[str, Found]


class Tree:
    """The documents of an archive, each labelled with what it refers to.

    An index may list platforms that the archive does not have, as long as it has one that is
    wanted: `platforms`, or any if there are none, and at most `limit` of them, 0 without one.
    """

    def __init__(
        self,
        parts: StoredParts,
        platforms: Sequence[Platform],
        *,
        all_metadata: bool = False,
        limit: int = 0,
    ) -> None:
        self._parts = parts
        self._platforms = platforms
        self._all_metadata = all_metadata
        self._limit = limit
        self._known: dict[tuple[str, Platform | None], _Images | NotFound] = {}
        self._kept: set[str] = set()
        self._room = Room()
        self._found: _Images = {}

    def images(self, target: Descriptor) -> list[Found]:
        """The wanted images that `target` leads to; none if it is for another platform.

        Raises NotFound when something of them is missing, InvalidArgument for bad documents,
        ResourceExhausted for too many.
        """
        found: _Images = {}
        for where in self._platforms or (None,):
            found |= self._wanted(target, where, _DEPTH)
        if self._all_metadata:
            self._metadata(target, _DEPTH)
        return list(found.values())[: self._limit or None]

    def _wanted(self, target: Descriptor, where: Platform | None, depth: int) -> _Images:
        """The image that serves a platform best, or all; each document is looked at once."""
        key = (target.digest, where)
        if key not in self._known:
            if len(self._known) >= _DOCUMENTS_MAX:
                raise ResourceExhausted(f"archive has more than {_DOCUMENTS_MAX} images")
            try:
                self._known[key] = self._look(target, where, depth)
            except NotFound as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, NotFound):
            raise known
        return known

    def _look(self, target: Descriptor, where: Platform | None, depth: int) -> _Images:
        if target.media_type in mediatypes.MANIFESTS:
            found = self._manifest(target)
            if where is not None and platform.rank(where, found.platform) is None:
                return {}
            return {target.digest: self._keep(found)}
        images: _Images = {}
        missing: NotFound | None = None
        for child in _ranked(self._index(target, depth), where):
            try:
                images |= self._wanted(child, where, depth - 1)
            except NotFound as error:
                missing = missing or error
            if images and where is not None:
                break
        if missing is not None and not images:
            raise missing
        return images

    def _metadata(self, target: Descriptor, depth: int) -> None:
        """Keep what documents there are of all platforms, layers or not."""
        if target.digest in self._kept or not self._parts.has(target):
            return
        self._kept.add(target.digest)
        if target.media_type in mediatypes.MANIFESTS:
            self._parts.has(self._read_manifest(target).config)
            return
        for child in _ranked(self._index(target, depth), None):
            self._metadata(child, depth - 1)

    def _index(self, target: Descriptor, depth: int) -> Index:
        if target.media_type not in mediatypes.INDEXES:
            raise InvalidArgument(
                f'{target.digest} in the archive is of media type "{target.media_type}", '
                "neither an image manifest nor an index"
            )
        if not depth:
            raise InvalidArgument("archive nests indexes too deeply")
        index = documents.parse(self._parts.document(target), target.media_type)
        assert isinstance(index, Index)
        self._parts.adopt(target, index.manifests)
        return index

    def _read_manifest(self, target: Descriptor) -> Manifest:
        manifest = documents.parse(self._parts.document(target), target.media_type)
        assert isinstance(manifest, Manifest)
        self._parts.adopt(target, (manifest.config, *manifest.layers))
        return manifest

    def _manifest(self, target: Descriptor) -> Found:
        """A manifest of which everything is here."""
        manifest = self._read_manifest(target)
        for layer in manifest.layers:
            self._parts.blob(layer)
        if manifest.config.media_type not in mediatypes.CONFIGS:
            self._parts.blob(manifest.config)
            return Found(target, manifest, None, target.platform)
        config = documents.parse_config(self._parts.document(manifest.config))
        own = config.platform if config.os else None
        return Found(target, manifest, config, target.platform or own)

    def _keep(self, found: Found) -> Found:
        """To the end, and once, however many of the platforms it serves."""
        target = found.descriptor
        if target.digest not in self._found:
            self._room.keep(target)
            if found.config is not None:
                self._room.keep(found.manifest.config)
            self._found[target.digest] = found
        return self._found[target.digest]


def _ranked(index: Index, where: Platform | None) -> list[Descriptor]:
    """The images and indexes in an index that may serve a platform, the best first; or all."""
    known = mediatypes.MANIFESTS | mediatypes.INDEXES
    children = [child for child in index.manifests if child.media_type in known]
    if where is None:
        return children
    scored = [(platform.rank(where, child.platform), child) for child in children]
    serving = [(score, child) for score, child in scored if score is not None]
    return [child for _, child in sorted(serving, key=lambda each: each[0])]
