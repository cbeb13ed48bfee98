"""The JSON of archives, byte for byte as Go writes it: the same archive gets the same digests."""

from __future__ import annotations

import json
from typing import Any

from orlop.oci.descriptor import Descriptor, Platform

# Go's encoding/json keeps these out of HTML and JavaScript.
_ESCAPES = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPES).encode()


def descriptor(found: Descriptor) -> dict[str, Any]:
    """A descriptor with its members in the order of the image spec's Go types."""
    members: dict[str, Any] = {
        "mediaType": found.media_type,
        "digest": found.digest,
        "size": found.size,
        "urls": list(found.urls),
        "annotations": dict(sorted(found.annotations.items())),
        "platform": found.platform and _platform(found.platform),
        "artifactType": found.artifact_type,
    }
    return {key: value for key, value in members.items() if value or key == "size"}


def _platform(found: Platform) -> dict[str, Any]:
    members: dict[str, Any] = {
        "architecture": found.architecture,
        "os": found.os,
        "os.version": found.os_version,
        "os.features": list(found.os_features),
        "variant": found.variant,
    }
    return {key: each for key, each in members.items() if each or key in ("architecture", "os")}


def index(manifests: list[Descriptor]) -> bytes:
    """An `index.json`."""
    return compact({"schemaVersion": 2, "manifests": [descriptor(each) for each in manifests]})
