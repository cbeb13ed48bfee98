"""Which manifests of an image are wanted; indexes, manifests and configs are fetched on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orlop.errors import InvalidArgument, NotFound, ResourceExhausted
from orlop.oci import manifest as documents
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import ImageConfig, Index, Manifest
from orlop.transfer.fetch import Fetcher

_DEPTH = 4  # indexes in indexes
_KEPT_MAX = 64 << 20  # bytes of documents; parsed, they take up to three times as much


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest with its config, which is None for an artifact that is not an image."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig | None
    platform: Platform | None


class Room:
    """For the documents that one transfer keeps until its end."""

    def __init__(self) -> None:
        self._kept = 0

    def keep(self, document: Descriptor) -> None:
        """Raises ResourceExhausted when it is one too many."""
        self._kept += document.size
        if self._kept > _KEPT_MAX:
            raise ResourceExhausted(f"documents have more than {_KEPT_MAX} bytes in all")


class Documents:
    """The documents of what `target` names, each fetched once and labelled with what it refers to.

    Raises InvalidArgument for what is neither an index nor a manifest.
    """

    def __init__(self, fetcher: Fetcher, target: Descriptor) -> None:
        self._fetcher = fetcher
        self._target = target
        self._indexes: dict[str, Index] = {}
        self._found: dict[str, Found] = {}
        self._room = Room()
        # What was walked in vain: an index may name another thousands of times, and that one, too.
        self._barren: set[tuple[str, Platform, int]] = set()

    def choose(self, platforms: Sequence[Platform]) -> list[Found]:
        """The best manifest for each platform; all manifests when no platform is named.

        Attestations count as manifests then, and come last: without their layers the image could
        be neither pushed nor exported. Raises NotFound when there is none.
        """
        if platforms:
            picked = [self._best(self._target, each, _DEPTH) for each in platforms]
            found = {each.descriptor.digest: each for each in picked if each is not None}
        else:
            every = self._all(self._target, _DEPTH, set())
            ordered = sorted(every, key=lambda each: _is_attestation(each.descriptor))
            found = {each.descriptor.digest: each for each in ordered}
        if not found:
            names = ", ".join(platform.text(each) for each in platforms) or "any platform"
            raise NotFound(f'platform {names} in image "{self._fetcher.reference}"')
        return list(found.values())

    def fetch_all(self) -> None:
        """Fetch the documents of every platform, and of attestations."""
        for _ in self._all(self._target, _DEPTH, set()):
            pass

    def _best(self, target: Descriptor, wanted: Platform, depth: int) -> Found | None:
        """What serves a platform best. What says nothing of its platform is tried last."""
        key = (target.digest, wanted, depth)
        if key in self._barren:
            return None
        found = self._search(target, wanted, depth)
        if found is None:
            self._barren.add(key)
        return found

    def _search(self, target: Descriptor, wanted: Platform, depth: int) -> Found | None:
        if target.media_type in mediatypes.MANIFESTS:
            found = self._manifest(target)
            return None if platform.rank(wanted, found.platform) is None else found
        ranked = [
            (score, number, child)
            for number, child in enumerate(self._index(target, depth).manifests)
            if child.media_type in mediatypes.MANIFESTS | mediatypes.INDEXES
            and (score := platform.rank(wanted, child.platform)) is not None
        ]
        for _, _, child in sorted(ranked, key=lambda entry: entry[:2]):
            if (best := self._best(child, wanted, depth - 1)) is not None:
                return best
        return None

    def _all(self, target: Descriptor, depth: int, walked: set[tuple[str, int]]) -> Iterator[Found]:
        """All that a document leads to, each once."""
        if (target.digest, depth) in walked:
            return
        walked.add((target.digest, depth))
        if target.media_type in mediatypes.MANIFESTS:
            yield self._manifest(target)
            return
        for child in self._index(target, depth).manifests:
            if child.media_type not in mediatypes.MANIFESTS | mediatypes.INDEXES:
                self._fetcher.blob(child)
            else:
                yield from self._all(child, depth - 1, walked)

    def _index(self, target: Descriptor, depth: int) -> Index:
        if target.media_type not in mediatypes.INDEXES:
            raise InvalidArgument(
                f'"{self._fetcher.reference}" is of media type "{target.media_type}", '
                "neither an image manifest nor an index"
            )
        if not depth:
            raise InvalidArgument(f'"{self._fetcher.reference}" nests indexes too deeply')
        index = self._indexes.get(target.digest)
        if index is None:
            found = documents.parse(self._document(target), target.media_type)
            assert isinstance(found, Index)
            index = self._indexes[target.digest] = found
            self._fetcher.adopt(target, index.manifests)
        return index

    def _manifest(self, target: Descriptor) -> Found:
        found = self._found.get(target.digest)
        if found is None:
            found = self._found[target.digest] = self._load(target)
        return found

    def _document(self, wanted: Descriptor) -> bytes:
        """One to be kept."""
        data = self._fetcher.document(wanted)
        self._room.keep(wanted)
        return data

    def _load(self, target: Descriptor) -> Found:
        manifest = documents.parse(self._document(target), target.media_type)
        assert isinstance(manifest, Manifest)
        self._fetcher.adopt(target, (manifest.config, *manifest.layers))
        if manifest.config.media_type not in mediatypes.CONFIGS:
            self._fetcher.blob(manifest.config)
            return Found(target, manifest, None, target.platform)
        config = documents.parse_config(self._document(manifest.config))
        own = config.platform if config.os else None
        return Found(target, manifest, config, target.platform or own)


def _is_attestation(child: Descriptor) -> bool:
    """Attestations ride along in indexes as images of no platform."""
    offered = child.platform
    return offered is not None and (offered.os, offered.architecture) == ("unknown", "unknown")
