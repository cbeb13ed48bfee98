"""The overlayfs driver: a snapshot is an upper folder on the upper folders of its parents."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from orlop.snapshots.driver import Driver
from orlop.sys.mount import Mount
from orlop.sys.process import in_user_namespace

_INDEX_PARAMETER = Path("/sys/module/overlay/parameters/index")


class OverlayDriver(Driver):
    """Folders `snapshots/<number>/{fs,work}`; `options` are added to every overlay mount."""

    rebase = True
    # Linux 5.19 is the first whose overlays take lower folders with mapped ids.
    maps_ids = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 19)

    def __init__(self, root: Path, options: Sequence[str] = ()) -> None:
        super().__init__(root)
        self._options = tuple(options) or kernel_options()

    def create(self, number: int, parents: Sequence[int], *, read_only: bool) -> None:
        folder = self.folder(number)
        folder.mkdir(mode=0o700)
        content = folder / "fs"
        content.mkdir(mode=0o755)
        content.chmod(0o755)
        if not read_only:
            (folder / "work").mkdir(mode=0o711)
        if parents:
            owner = os.stat(self.content(parents[0]))  # noqa: PTH116 - one call, on the hot path
            if owner.st_uid or owner.st_gid:
                os.chown(content, owner.st_uid, owner.st_gid)

    def content(self, number: int) -> Path:
        return self.folder(number) / "fs"

    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        if not parents:
            access = "ro" if read_only else "rw"
            return [Mount("bind", str(self.content(number)), options=(access, "rbind"))]
        if read_only and len(parents) == 1:
            return [Mount("bind", str(self.content(parents[0])), options=("ro", "rbind"))]
        options = []
        if not read_only:
            options = [
                f"workdir={self.folder(number) / 'work'}",
                f"upperdir={self.content(number)}",
            ]
        options.append("lowerdir=" + ":".join(str(self.content(p)) for p in parents))
        return [Mount("overlay", "overlay", options=(*options, *self._options))]


def kernel_options() -> tuple[str, ...]:
    """What this kernel needs: no index, which would tie an upper to its lowers; user xattrs in a
    user namespace, where trusted ones cannot be written."""
    options = []
    if _INDEX_PARAMETER.exists():
        options.append("index=off")
    if in_user_namespace():
        options.append("userxattr")
    return tuple(options)
