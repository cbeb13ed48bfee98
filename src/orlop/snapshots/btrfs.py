"""The btrfs driver: a snapshot is a subvolume, at first the same as its parent's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from orlop.errors import FailedPrecondition
from orlop.snapshots.driver import Driver
from orlop.snapshots.model import Usage
from orlop.snapshots.quota import UNLIMITED, Limits
from orlop.sys import btrfs
from orlop.sys.mount import Mount
from orlop.sys.usage import BLOCK, look_through

_PARENT = "parent"


class BtrfsDriver(Driver):
    """Folders `snapshots/<number>` with the subvolume `fs`, and a link to the parent's folder.

    Raises OSError where `root` is not on btrfs.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        btrfs.check(root)

    def create(
        self,
        number: int,
        parents: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        folder = self.folder(number)
        folder.mkdir(mode=0o700)
        if not parents:
            btrfs.create(self.content(number))
            self.content(number).chmod(0o755)
        else:
            (folder / _PARENT).symlink_to(f"../{parents[0]}")
            if not read_only:  # a view shows the parent itself
                btrfs.snapshot(self.content(parents[0]), self.content(number))
        if any(limits) and not read_only:
            self._limit(self.content(number), limits)

    def _limit(self, content: Path, limits: Limits) -> None:
        if limits.inodes:
            raise FailedPrecondition("btrfs can limit the size of snapshots, and not their inodes")
        try:
            btrfs.limit(content, limits.size)
        except OSError as error:
            raise FailedPrecondition(
                f'size of snapshots cannot be limited on the btrfs of "{self.root}" '
                f'({(error.strerror or str(error)).lower()}): btrfs quota enable "{self.root}"'
            ) from error

    def content(self, number: int) -> Path:
        return self.folder(number) / "fs"

    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        shown = parents[0] if read_only and parents else number
        access = "ro" if read_only else "rw"
        return [Mount("bind", str(self.content(shown)), options=("rbind", access))]

    def usage(self, number: int) -> Usage:
        """What the parent does not have; a file that was changed counts whole."""
        shared: set[tuple[int, int]] = set()
        own: dict[int, int] = {}

        def share(about: os.stat_result) -> None:
            shared.add((about.st_ino, about.st_ctime_ns))

        def add(about: os.stat_result) -> None:
            if (about.st_ino, about.st_ctime_ns) not in shared:
                own[about.st_ino] = about.st_blocks * BLOCK

        for folder, see in ((self.folder(number) / _PARENT / "fs", share),
                            (self.content(number), add)):  # fmt: skip
            if folder.exists():
                look_through(str(folder), see)
        return Usage(sum(own.values()), len(own))

    def destroy(self, path: Path) -> None:
        with suppress(OSError):  # a view has none
            btrfs.delete(path / "fs")
        super().destroy(path)
