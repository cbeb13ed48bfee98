"""Snapshots' mounts, shown for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orlop.sys.mount import Mount, mount_all, unmount


@contextmanager
def mounted(mounts: Sequence[Mount], root: Path) -> Iterator[Path]:
    """At `root/mnt`."""
    target = root / "mnt"
    target.mkdir(exist_ok=True)
    mount_all(mounts, target)
    try:
        yield target
    finally:
        unmount(target)
