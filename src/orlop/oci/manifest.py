"""Manifests, indexes and configs (OCI image spec, manifest.md, image-index.md, config.md)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from orlop import typed
from orlop.errors import InvalidArgument
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor, Platform
from orlop.oci.digest import Digest

T = TypeVar("T")

# Registries refuse larger ones, too (OCI distribution spec, "Pushing manifests").
DOCUMENT_MAX = 4 << 20
# No more can be mounted; a document of the largest size could name tens of thousands.
LAYERS_MAX = 1000


class _Document(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """JSON names in camel case; unknown members are let pass."""


class Manifest(_Document, frozen=True):
    """One platform's image: a config and layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = ""
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(_Document, frozen=True):
    """Manifests to choose from."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str = ""
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class RootFS(msgspec.Struct, frozen=True):
    """The layers of a config: digests of the uncompressed tars."""

    diff_ids: tuple[str, ...] = ()
    type: str = "layers"


class ImageConfig(msgspec.Struct, frozen=True):
    """What is needed of an image config in order to unpack it."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    rootfs: RootFS = RootFS()

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant)


class _Shape(msgspec.Struct, rename="camel"):
    """Which kind of document it is, by its members."""

    media_type: str = ""
    manifests: Any = None
    layers: Any = None
    config: Any = None


def parse(data: bytes, media_type: str) -> Manifest | Index:
    """The manifest or index in `data`, which was announced as `media_type`.

    Raises InvalidArgument for a document that is too large, malformed, of an unknown type, or
    ambiguous: one that is both a manifest and an index, or says to be what it is not; and for an
    image of too many layers.
    """
    if len(data) > DOCUMENT_MAX:
        raise InvalidArgument(f"manifest of {len(data)} bytes is larger than {DOCUMENT_MAX}")
    shape = _decode(data, _Shape, media_type)
    is_index = shape.manifests is not None
    if is_index and (shape.layers is not None or shape.config is not None):
        raise InvalidArgument("document is a manifest and an index at once")
    if shape.media_type and shape.media_type != media_type:
        raise InvalidArgument(
            f'document says to be "{shape.media_type}" but was announced as "{media_type}"'
        )
    if media_type in mediatypes.INDEXES:
        if not is_index:
            raise InvalidArgument(f'document of type "{media_type}" lists no manifests')
        index = _decode(data, Index, media_type)
        return _checked(index, index.manifests)
    if media_type not in mediatypes.MANIFESTS:
        raise InvalidArgument(f'media type "{media_type}" is neither a manifest nor an index')
    if is_index:
        raise InvalidArgument(f'document of type "{media_type}" is an index')
    manifest = _decode(data, Manifest, media_type)
    if manifest.config.media_type in mediatypes.CONFIGS:  # an artifact may have more
        check_layers(len(manifest.layers))
    return _checked(manifest, (manifest.config, *manifest.layers))


def check_layers(count: int) -> None:
    """Raises InvalidArgument for more layers than an image may have."""
    if count > LAYERS_MAX:
        raise InvalidArgument(f"image has {count} layers, {LAYERS_MAX} are the most")


def parse_config(data: bytes) -> ImageConfig:
    """Raises InvalidArgument for one that is malformed."""
    config = _decode(data, ImageConfig, "image config")
    for diff_id in config.rootfs.diff_ids:
        Digest.parse(diff_id)
    return config


def _checked(document: T, descriptors: tuple[Descriptor, ...]) -> T:
    for descriptor in descriptors:
        Digest.parse(descriptor.digest)
        if not 0 <= descriptor.size < 1 << 63:
            raise InvalidArgument(f"descriptor {descriptor.digest} has size {descriptor.size}")
    return document


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return typed.convert(_without_nulls(msgspec.json.decode(data)), kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f'"{what}" does not parse: {error}') from None


def _without_nulls(value: Any) -> Any:
    """The document without members that are null: Go writes an empty list so."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
