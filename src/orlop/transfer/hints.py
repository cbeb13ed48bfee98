"""What containerd tells a snapshotter that may have layers by itself, for it to find one."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.metadata.labels import PAIR_MAX
from orlop.oci.descriptor import Descriptor

_REF = "containerd.io/snapshot.ref"
_INHERITED = "containerd.io/snapshot/"
_IMAGE = "containerd.io/snapshot/cri.image-ref"
_MANIFEST = "containerd.io/snapshot/cri.manifest-digest"
_LAYER = "containerd.io/snapshot/cri.layer-digest"
_LAYERS = "containerd.io/snapshot/cri.image-layers"


def hints(chain: str, image: str, manifest: str, layers: Sequence[Descriptor]) -> dict[str, str]:
    """Labels for the snapshot `chain` of the first of `layers`; the others are those above it.

    Without `image`, the name that its layers can be fetched by, only what the layer itself says.
    """
    first = layers[0]
    told = {key: value for key, value in first.annotations.items() if key.startswith(_INHERITED)}
    told[_REF] = chain
    if image:
        told |= {
            _IMAGE: image,
            _MANIFEST: manifest,
            _LAYER: first.digest,
            _LAYERS: _as_many(layers),
        }
    return told


def _as_many(layers: Sequence[Descriptor]) -> str:
    """Digests, as many as one label takes."""
    text = ""
    for layer in layers:
        longer = f"{text},{layer.digest}" if text else layer.digest
        if len(_LAYERS) + len(longer) > PAIR_MAX:
            break
        text = longer
    return text
