"""What is known of blobs and of writes in progress. Times are nanoseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Info:
    """A blob as one namespace sees it; `size` in bytes."""

    digest: str
    size: int
    created_at: int
    updated_at: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """A write in progress: `offset` bytes are here, of `total` (0 when that is not known)."""

    ref: str
    offset: int
    total: int
    expected: str
    started_at: int
    updated_at: int


class Locked(Unavailable):
    """Somebody else writes under that ref just now: to wait for him helps."""
