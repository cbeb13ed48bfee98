"""The noun of this room."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from orlop.oci.descriptor import Descriptor


class Image(msgspec.Struct, frozen=True):
    """A name and the content that it stands for. Times are UTC nanoseconds since the epoch.

    Of the target's fields, media type, digest, size and annotations are kept.
    """

    name: str
    target: Descriptor
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0
