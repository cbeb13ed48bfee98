"""Descriptors: how one piece of content names another (OCI image spec, descriptor.md)."""

from __future__ import annotations

import msgspec


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image runs on (image-index.md, "platform")."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Media type, digest and size in bytes of a blob, and what is said about it.

    Encodes to and decodes from its JSON form with `msgspec.json`.
    """

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
