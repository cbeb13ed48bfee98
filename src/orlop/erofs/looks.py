"""Folders that a layer implies look as in the layers below, which are known only later."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orlop.erofs import layout

# As `orlop.diff.inherit` tells them, by path.
Looks = Mapping[str, Mapping[str, Any]]


def fit(looks: Looks) -> bool:
    """Whether an image that is made can be given them: there is no room for attributes."""
    return not any(look["xattrs"] for look in looks.values())


def give(image: Path, places: Mapping[str, int], looks: Looks) -> None:
    """Write looks to the inodes of folders, whose offsets `places` has."""
    fd = os.open(image, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path, wanted in looks.items():
            place = places.get(path, -1)
            if place < 0:
                continue
            mode = stat.S_IFDIR | wanted["mode"]
            for offset, data in layout.look(mode, wanted["uid"], wanted["gid"], wanted["mtime"]):
                os.pwrite(fd, data, place + offset)
        os.fsync(fd)
    finally:
        os.close(fd)
