"""What the sweep must come by, however the code is arranged: where storage can be torn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.storm import neighbour
from tests.storm.rooms import PROXY

COMMON = {
    "the name of a blob": r"content\.files\.publish .*: os\.link",
    "the end of the data of another write": r"content\.files\.clear_ingest .*: os\.rmdir",
    "the row of a write": r"content\.store\._begin: committed",
    "the row of a blob": r"content\.store\._record: committed",
    "the row of a blob that was taken over": r"content\.store\._take: committed",
    "the seal of a blob": r"content\.files\.seal .*: os\.chmod",
    "the row of an image": r"images\.store\.create: committed",
    "what a collection has looked at": r"gc\.collector\._run: DELETE",
    "what a collection deletes": r"content\.files\.doom .*: os\.rename",
    "the record of an activation": r"mounts\.store\.begin: committed",
    "a mount": r"sys\.mount\.mount < mounts\.handlers\._mount: mount",
    "a loop device": r"sys\.loop\._open_configured < mounts\.handlers\._attach: fcntl\.ioctl",
    "a loop device that is to stay": r"sys\.loop\.keep < mounts\.handlers\._attach: fcntl\.ioctl",
    "an activation that is made": r"mounts\.store\.finish: committed",
    "the end of a mount": r"sys\.mount\.unmount < mounts\.handlers\.undo: umount2",
    "the end of an activation": r"mounts\.store\.drop: committed",
}
_BUILT_IN = {
    "the folder of a snapshot": r"snapshots\.{name}\.create of {name}: os\.mkdir",
    "the row of a snapshot": r"snapshots\.store\._create of {name}: committed",
    "the commit of a snapshot": r"snapshots\.store\._commit_now of {name}: committed",
    "the end of its row": r"snapshots\.shelf\.(remove|collect) of {name}: committed",
    "the end of its folder": r"snapshots\.driver\.trash of {name}: os\.rename",
    "its removal": r"sys\.removal\.remove_tree < snapshots\.driver\.destroy of {name}: os\.rmdir",
}
_OF_ONE = {
    "overlayfs": {"the row of an extraction": r"snapshots\.store\.adopt of overlayfs: committed"},
    "native": {
        "the copy of a parent": r"sys\.program\.\w+ < snapshots\.native\._copy of native: .*Popen"
    },
    "btrfs": {
        "a subvolume": r"sys\.btrfs\.\w+ < snapshots\.btrfs\.create of btrfs: fcntl\.ioctl",
        "its end": r"sys\.btrfs\.\w+ < snapshots\.btrfs\.destroy of btrfs: fcntl\.ioctl",
    },
    "erofs": {
        "the row of an extraction": r"snapshots\.store\.adopt of erofs: committed",
        "the beginning of a seal": r"sys\.fs\..* < snapshots\.erofs\.seal of erofs: fsynced",
        "the end of a seal": r"snapshots\.records\.commit of erofs: UPDATE",
        "the layer of what was sealed": r"snapshots\.erofs\._take_sealed of erofs: os\.rename",
        "the end of its files": r"sys\.removal\.\w+ < snapshots\.erofs\.settle of erofs: os\.rmdir",
        "the mount of a layer": r"sys\.mount\.mount < snapshots\.erofs\._mount of erofs: mount",
        "the end of that mount": r"sys\.mount\.unmount < snapshots\.erofs\.\w+ of erofs: umount2",
    },
}
_PROXIED = {
    "the name of a snapshot there": r"snapshots\.proxy\._coming of {name}: committed",
    "the row of a snapshot": r"snapshots\.proxy\._create of {name}: committed",
    "the commit of a snapshot": r"snapshots\.proxy\.commit of {name}: committed",
    "the end of its row": r"snapshots\.shelf\.(remove|collect) of {name}: committed",
    "the end of the name": r"snapshots\.proxied\._remove: committed",
}


def of(snapshotter: str) -> dict[str, str]:
    """Where the snapshots of one snapshotter can be torn: what it is, and a pattern of steps."""
    if snapshotter == PROXY:
        return _of(_PROXIED, snapshotter)
    return _of(_BUILT_IN, snapshotter) | _OF_ONE[snapshotter]


def of_neighbour() -> dict[str, str]:
    """Those of the neighbour, whom nobody asks for extractions."""
    return _of(_BUILT_IN, neighbour.SNAPSHOTTER)


def _of(patterns: dict[str, str], snapshotter: str) -> dict[str, str]:
    return {what: pattern.format(name=snapshotter) for what, pattern in patterns.items()}


def steps(patterns: dict[str, str], known: Sequence[str]) -> list[str]:
    """The first step of each kind; LookupError where one is not among those that are `known`."""
    found = []
    for what, pattern in patterns.items():
        matching = [step for step in known if re.fullmatch(pattern, step)]
        if not matching:
            raise LookupError(f"the work does not come by {what}, {pattern}: {known}")
        found.append(matching[0])
    return found
