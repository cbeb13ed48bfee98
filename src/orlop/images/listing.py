"""All images of a namespace as they go out, with no objects in between."""

from __future__ import annotations

import json

from orlop.metadata import Transaction, labels
from orlop.rpc.encoding import delimited, field, integer, maps, times, varint

_IMAGES = delimited(1)
# Of Image, and of Descriptor.
_NAME, _LABELS, _TARGET, _CREATED_AT, _UPDATED_AT = map(delimited, (1, 2, 3, 7, 8))
_MEDIA_TYPE, _DIGEST, _ANNOTATIONS = map(delimited, (1, 2, 5))
_SIZE = integer(3)
_NO_ANNOTATIONS = b"{}"


def images(tx: Transaction, kind: str, namespace: str) -> list[bytes]:
    """The `images` of a ListImagesResponse, by name; their labels are of `kind`."""
    own_labels = maps(_LABELS, labels.get_raw(tx, kind, namespace))
    return [
        field(
            _IMAGES,
            field(_NAME, name)
            + own_labels.get(name, b"")
            + field(
                _TARGET,
                field(_MEDIA_TYPE, media_type)
                + field(_DIGEST, digest)
                + _SIZE
                + varint(size)
                + (b"" if annotations == _NO_ANNOTATIONS else _annotations(annotations)),
            )
            + times(_CREATED_AT, created_at, _UPDATED_AT, updated_at),
        )
        for name, media_type, digest, size, annotations, created_at, updated_at in tx.raw(
            "SELECT name, media_type, digest, size, annotations, created_at, updated_at"
            " FROM images WHERE namespace = ? ORDER BY name",
            (namespace,),
        )
    ]


def _annotations(stored: bytes) -> bytes:
    pairs = json.loads(stored).items()
    entries = maps(_ANNOTATIONS, ((b"", key.encode(), value.encode()) for key, value in pairs))
    return entries.get(b"", b"")
