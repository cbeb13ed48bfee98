"""Media types of the OCI image spec (media-types.md) and of Docker's schema 2."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})

_NON_DISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_LAYER_BASES = frozenset({OCI_LAYER, DOCKER_LAYER, *_NON_DISTRIBUTABLE})
_LAYER_SUFFIXES = ("+gzip", "+zstd", ".gzip", ".zstd")


def is_layer(media_type: str) -> bool:
    """Whether it is a filesystem layer: a tar, plain or compressed by gzip or zstd."""
    for suffix in _LAYER_SUFFIXES:
        media_type = media_type.removesuffix(suffix)
    return media_type in _LAYER_BASES


def is_non_distributable(media_type: str) -> bool:
    """Whether it is a layer that is fetched from where its descriptor's URLs say."""
    return media_type.startswith(_NON_DISTRIBUTABLE)
