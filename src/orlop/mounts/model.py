"""The nouns of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop.sys.mount import Mount


@dataclass(frozen=True, slots=True)
class Active:
    """A mount that was made at `mount_point`, at `mounted_at` in UTC nanoseconds since the epoch.

    Of a loop device the mount point is a link to the device.
    """

    mount: Mount
    mount_point: str
    mounted_at: int


@dataclass(frozen=True, slots=True)
class Activation:
    """Mounts of one name: those that were made, in order, and those left to the caller."""

    name: str
    active: tuple[Active, ...] = ()
    system: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
