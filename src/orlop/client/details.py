"""What an image consists of, platform by platform, and how much of it is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orlop.client import images
from orlop.client.connection import Connection
from orlop.errors import InvalidArgument, NotFound
from orlop.oci import mediatypes, platform
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.manifest import Index, Manifest, parse
from orlop.wire.services import content_pb2

_DEPTH_MAX = 4


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform's image. `missing` are digests that are not here; without its manifest or
    config the other fields are empty, as for what an index lists besides images."""

    digest: str
    platform: str
    missing: list[str]
    media_type: str
    manifest: Manifest | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of config and layers, as the manifest says."""
        if self.manifest is None:
            return 0
        return self.manifest.config.size + sum(layer.size for layer in self.manifest.layers)


def platforms_of(connection: Connection, image: images.Image) -> list[PlatformImage]:
    """Every platform that the image has. Raises NotFound when its target is not here,
    InvalidArgument for a malformed document."""
    target = Descriptor(
        media_type=image.target.media_type, digest=image.target.digest, size=image.target.size
    )
    images.document(connection, target.digest)
    return list(_walk(connection, target, _DEPTH_MAX, set()))


def _walk(
    connection: Connection, wanted: Descriptor, depth: int, seen: set[str]
) -> Iterator[PlatformImage]:
    if wanted.digest in seen:
        return  # indexes that list each other's children again and again have no end otherwise
    seen.add(wanted.digest)
    text, kind = _text(wanted.platform), wanted.media_type
    if kind not in mediatypes.MANIFESTS | mediatypes.INDEXES:
        missing = [] if _is_here(connection, wanted.digest) else [wanted.digest]
        yield PlatformImage(wanted.digest, text, missing, kind)
        return
    try:
        found = parse(images.document(connection, wanted.digest), wanted.media_type)
    except NotFound:
        yield PlatformImage(wanted.digest, text, [wanted.digest], kind)
        return
    if isinstance(found, Manifest):
        yield _platform_image(connection, wanted, found)
        return
    if not depth:
        raise InvalidArgument(f'index "{wanted.digest}" is nested too deep')
    for each in found.manifests:
        yield from _walk(connection, each, depth - 1, seen)


def _platform_image(
    connection: Connection, wanted: Descriptor, manifest: Manifest
) -> PlatformImage:
    parts = (manifest.config, *manifest.layers)
    missing = [part.digest for part in parts if not _is_here(connection, part.digest)]
    config: dict[str, Any] = {}
    if manifest.config.digest not in missing:
        config = _config(images.document(connection, manifest.config.digest))
    offered = wanted.platform or _platform_of(config)
    return PlatformImage(
        wanted.digest, _text(offered), missing, wanted.media_type, manifest, config
    )


def _platform_of(config: dict[str, Any]) -> Platform:
    architecture, os, variant = (
        str(config.get(key) or "") for key in ("architecture", "os", "variant")
    )
    return Platform(architecture, os, variant)


def _config(data: bytes) -> dict[str, Any]:
    """The config; empty when it is something else, as an artifact's may be."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: Platform | None) -> str:
    return platform.text(found) if found is not None and found.os else ""


def _is_here(connection: Connection, digest: str) -> bool:
    try:
        connection.content.info(content_pb2.InfoRequest(digest=digest))
    except NotFound:
        return False
    return True


def of_this_machine(connection: Connection, image: images.Image) -> PlatformImage:
    """The one that runs here; NotFound when there is none."""
    found = platforms_of(connection, image)
    if len(found) == 1:
        return found[0]
    offers = [(platform.parse(each.platform) if each.platform else None, each) for each in found]
    best = platform.best(platform.host(), [offer for offer in offers if offer[0] is not None])
    if best is None:
        raise NotFound(f'platform {platform.text(platform.host())} of image "{image.name}"')
    return best


def children(data: bytes, media_type: str) -> list[Descriptor]:
    """What an index lists; nothing for a manifest."""
    found = parse(data, media_type)
    return list(found.manifests) if isinstance(found, Index) else []
