"""Storms in which the power goes, on filesystems that each keep other things in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests import disks
from tests.storm.storm import Storm


class _Filesystem(NamedTuple):
    make: Sequence[str]
    size: int
    options: str
    snapshotters: Sequence[str]


_ALL = {
    "ext4": _Filesystem(["mkfs.ext4", "-q"], 64 << 20, "loop", ["overlayfs", "erofs"]),
    "xfs": _Filesystem(["mkfs.xfs", "-q"], 300 << 20, "loop", ["overlayfs", "erofs"]),
    "btrfs": _Filesystem(
        ["mkfs.btrfs", "-q", "--mixed"], 64 << 20, "loop", ["btrfs", "native", "overlayfs"]
    ),
}
FILESYSTEMS = tuple(_ALL)


@contextmanager
def storm_on(filesystem: str, folder: Path, seed: int) -> Iterator[Storm]:
    """A storm on a disk below `folder`, after a calm look at what there is to do."""
    make, size, options, snapshotters = _ALL[filesystem]
    disk = disks.Mortal(folder, make, size, options)
    with closing(disk), closing(Storm(disk.path, folder, seed, snapshotters, disk.cut)) as storm:
        storm.names()
        yield storm
