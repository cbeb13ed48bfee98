"""The nouns of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease. `created_at` is in UTC nanoseconds since the epoch.

    The label `containerd.io/gc.expire` holds the RFC 3339 time when it ends;
    `containerd.io/gc.flat` says that it does not keep what its resources refer to.
    """

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """What a lease keeps.

    `type` is `content`, `ingests`, `images`, `snapshots/<snapshotter>`, `mounts`, `networks` or
    `netns`.
    """

    type: str
    id: str
