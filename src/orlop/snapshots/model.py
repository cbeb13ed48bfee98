"""What is known of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """Numbers as on the wire."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Info:
    """One snapshot. Times are nanoseconds since the epoch; `parent` is "" for a base."""

    name: str
    parent: str
    kind: Kind
    created_at: int
    updated_at: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot itself takes, without its parents: bytes on disk and inodes."""

    size: int
    inodes: int
