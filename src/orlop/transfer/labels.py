"""Labels that a pull leaves: what refers to what, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orlop.metadata.labels import PAIR_MAX
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor

_CONTENT_REF = "containerd.io/gc.ref.content"
_SOURCE = "containerd.io/distribution.source."


def child_labels(children: Sequence[Descriptor]) -> dict[str, str]:
    """References from a manifest or index to its children, for the garbage collector."""
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    for child in children:
        kind = _kind(child.media_type)
        if kind == ".config":
            labels[f"{_CONTENT_REF}.config"] = child.digest
            continue
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        labels[f"{_CONTENT_REF}{kind}.{number}"] = child.digest
    return labels


def _kind(media_type: str) -> str:
    if media_type in mediatypes.CONFIGS:
        return ".config"
    if media_type in mediatypes.MANIFESTS:
        return ".m"
    return ".l" if mediatypes.is_layer(media_type) else ""


def source_repositories(host: str, labels: Mapping[str, str]) -> list[str]:
    """The repositories of `host` that a blob with these labels is known to be in."""
    return sorted(filter(None, labels.get(_SOURCE + host, "").split(",")))


def source_labels(host: str, path: str, before: Mapping[str, str]) -> dict[str, str]:
    """The repositories of `host` that a blob is known to be in, with `path` added."""
    key = _SOURCE + host
    value = ",".join(sorted({*source_repositories(host, before), path}))
    return {key: value} if len(key) + len(value) <= PAIR_MAX else {}


def ref_key(descriptor: Descriptor) -> str:
    """The ingest ref of an object, by which clients know it."""
    if descriptor.media_type in mediatypes.MANIFESTS:
        kind = "manifest"
    elif descriptor.media_type in mediatypes.INDEXES:
        kind = "index"
    elif descriptor.media_type in mediatypes.CONFIGS:
        kind = "config"
    else:
        kind = "layer" if mediatypes.is_layer(descriptor.media_type) else "unknown"
    return f"{kind}-{descriptor.digest}"
