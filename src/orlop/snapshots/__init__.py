"""Snapshots: layered filesystems that images unpack into and containers write to.

`Snapshotter` is what the rest of the daemon knows. `SnapshotStore` implements it for a `Driver`,
which owns the folders and says how to mount them: overlayfs; erofs, which keeps layers as images;
btrfs, by its subvolumes; or native, which copies. `ProxySnapshotter` (module `proxy`) implements it
by a service elsewhere.
"""

from orlop.snapshots.btrfs import BtrfsDriver
from orlop.snapshots.driver import Driver
from orlop.snapshots.erofs import ErofsDriver
from orlop.snapshots.model import Info, Kind, Usage
from orlop.snapshots.native import NativeDriver
from orlop.snapshots.overlayfs import OverlayDriver
from orlop.snapshots.shelf import SnapshotIds
from orlop.snapshots.snapshotter import Extraction, Snapshotter
from orlop.snapshots.store import Defaults, SnapshotStore

__all__ = [
    "BtrfsDriver",
    "Defaults",
    "Driver",
    "ErofsDriver",
    "Extraction",
    "Info",
    "Kind",
    "NativeDriver",
    "OverlayDriver",
    "SnapshotIds",
    "SnapshotStore",
    "Snapshotter",
    "Usage",
]
