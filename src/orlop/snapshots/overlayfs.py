"""The overlayfs driver: a snapshot is an upper folder on the upper folders of its parents."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from orlop.snapshots import volatile
from orlop.snapshots.driver import Driver
from orlop.snapshots.model import Usage
from orlop.snapshots.quota import UNLIMITED, Limits
from orlop.sys.mount import Mount
from orlop.sys.process import in_user_namespace

_INDEX_PARAMETER = Path("/sys/module/overlay/parameters/index")


class OverlayDriver(Driver):
    """Folders `snapshots/<number>/{fs,work}`; `options` are added to every overlay mount."""

    rebase = True
    layered = True
    # Linux 5.19 is the first whose overlays take lower folders with mapped ids.
    maps_ids = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 19)

    def __init__(self, root: Path, options: Sequence[str] = ()) -> None:
        super().__init__(root)
        self._options = tuple(options) or kernel_options()
        self._below = str(self.snapshots)

    def create(
        self,
        number: int,
        parents: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        # By strings: a container waits, and a Path takes longer than what is done with it.
        folder, content = self._place(number), f"{self._place(number)}/fs"
        os.mkdir(folder, 0o700)  # noqa: PTH102
        os.mkdir(content, 0o755)  # noqa: PTH102
        os.chmod(content, 0o755)  # noqa: PTH101
        if not read_only:
            os.mkdir(f"{folder}/work", 0o711)  # noqa: PTH102
            if any(limits):
                self._quota.start(number, [content, f"{folder}/work"])
                self._quota.limit(number, limits)
        if parents:
            owner = os.stat(f"{self._place(parents[0])}/fs")  # noqa: PTH116
            if owner.st_uid or owner.st_gid:
                os.chown(content, owner.st_uid, owner.st_gid)

    def _place(self, number: int) -> str:
        return f"{self._below}/{number}"

    def make_volatile(self, number: int) -> None:
        volatile.begin(self._place(number))

    def seal(self, number: int, parents: Sequence[int]) -> Usage:
        volatile.keep(self._place(number))
        return super().seal(number, parents)

    def content(self, number: int) -> Path:
        return self.folder(number) / "fs"

    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        if not parents:
            access = "ro" if read_only else "rw"
            return [Mount("bind", f"{self._place(number)}/fs", options=(access, "rbind"))]
        if read_only and len(parents) == 1:
            return [Mount("bind", f"{self._place(parents[0])}/fs", options=("ro", "rbind"))]
        options = []
        if not read_only:
            place = self._place(number)
            options = [f"workdir={place}/work", f"upperdir={place}/fs"]
            options += volatile.options(place)
        options.append("lowerdir=" + ":".join(f"{self._place(parent)}/fs" for parent in parents))
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
