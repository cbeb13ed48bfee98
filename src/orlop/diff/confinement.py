"""A worker among files of others: it sees nothing but those, and can do little."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from orlop.sys import process
from orlop.sys.mount import MNT_DETACH, Mount, make_private, mount, pivot_root, unmount

# More than any honest layer's list of names takes.
_MEMORY_MAX = 4 << 30


# Every Linux has that folder, and no worker needs it.
_PLACE = Path("/sys")


def private_mounts() -> None:
    """From here on nobody else sees what this process mounts."""
    process.unshare(process.CLONE_NEWNS)
    make_private(Path("/"))


def mount_point() -> Path:
    """After `private_mounts`, an empty folder for what a worker is to see.

    It is in a tmpfs that goes with the worker: one on disk would stay behind when the daemon is
    killed.
    """
    mount("tmpfs", _PLACE, "tmpfs", 0, "mode=0700")
    folder = _PLACE / "root"
    folder.mkdir()
    return folder


def confine(root: Path, capabilities: Collection[int]) -> None:
    """Make the mount point `root` all there is, and keep only `capabilities`."""
    os.chdir(root)
    pivot_root(".", ".")
    unmount(Path(), MNT_DETACH)
    os.chdir("/")
    # A module that is not loaded yet would come from the files of others.
    sys.path.clear()
    sys.meta_path.clear()
    process.set_no_new_privs()
    process.keep_capabilities(capabilities)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_MAX, _MEMORY_MAX))


def plain(mounts: Iterable[Mount]) -> list[dict[str, Any]]:
    """Mounts as a worker's arguments; `mounts_of` reads them."""
    return [
        {
            "type": each.type,
            "source": each.source,
            "target": each.target,
            "options": list(each.options),
        }
        for each in mounts
    ]


def mounts_of(entries: Iterable[dict[str, Any]]) -> list[Mount]:
    return [
        Mount(entry["type"], entry["source"], entry["target"], tuple(entry["options"]))
        for entry in entries
    ]
