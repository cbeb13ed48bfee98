"""Where snapshots live on disk: one folder each, named by number."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from orlop.snapshots.model import Usage
from orlop.snapshots.quota import UNLIMITED, Limits, ProjectQuota
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import Mount
from orlop.sys.removal import remove_tree
from orlop.sys.usage import disk_usage

_TRASH = ".trash-"


class Driver(ABC):
    """The folders of one snapshotter below `root`, and how to mount them.

    A snapshot is known by its number; `parents` are the numbers of its chain, nearest first.
    """

    # Whether a layer can be unpacked before its parent is known.
    rebase = False
    # Whether a layer is kept as an image (`orlop.erofs.folders`), not as files in `content`.
    images = False
    # Whether a copy of all files is far more than a snapshot.
    layered = False
    # Whether a snapshot's files can be shown with other owners.
    maps_ids = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.snapshots = root / "snapshots"
        self.snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        self._quota = ProjectQuota(os.fspath(root))

    @abstractmethod
    def create(
        self,
        number: int,
        parents: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        """Make the folder of a new snapshot. What an exception leaves, `discard` removes.

        Raises FailedPrecondition where what is written to it cannot be limited.
        """

    @abstractmethod
    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        """The mounts that show the snapshot on its parents."""

    def give_to(self, number: int, mapping: IdMapping) -> None:
        """Make a new snapshot the root's of a user namespace, who is to write to it."""
        os.chown(self.content(number), *mapping.root)

    def make_volatile(self, number: int) -> None:  # noqa: B027 - most write at once anyhow
        """Let what is written to a new snapshot be lost when the machine stops, if that saves time.

        Its mounts then raise FailedPrecondition after that.
        """

    @abstractmethod
    def content(self, number: int) -> Path:
        """The folder that holds what the snapshot itself adds."""

    def seal(self, number: int, parents: Sequence[int]) -> Usage:
        """Make what was written to a snapshot a layer, before it is committed; what that takes."""
        del parents
        return self.usage(number)

    def settle(self, number: int) -> None:  # noqa: B027 - most need not
        """Let go of what a snapshot that is committed needs no more."""

    def stop(self) -> None:  # noqa: B027 - most need not
        """Break off what may take long, for whoever waits; from any thread."""

    def close(self) -> None:  # noqa: B027 - most need not
        """The daemon ends; snapshots that are mounted stay so."""

    def folder(self, number: int) -> Path:
        return self.snapshots / str(number)

    def usage(self, number: int) -> Usage:
        """Blocks and inodes of the snapshot's own folder; hard links count once."""
        return Usage(*disk_usage(os.fspath(self.content(number))))

    def size_limit(self, number: int) -> int:
        """Bytes that the snapshot's own folder may have, where a project limits them; else 0."""
        return self._quota.size_limit(number)

    def _lift_limits(self, number: int) -> None:
        """Before a snapshot is deleted, or when it needs none any more."""
        if self._quota.has(number):
            self._quota.release(number, os.fspath(self.content(number)))

    def numbers(self) -> set[int]:
        """Every snapshot that has a folder."""
        return {int(entry.name) for entry in self.snapshots.iterdir() if entry.name.isdecimal()}

    def trash(self, number: int) -> Path | None:
        """Take a snapshot out of sight, at once; the path to delete, None if there was nothing.

        Where the disk has no room for another name (btrfs), it stays what it was.
        """
        folder = self.folder(number)
        self._lift_limits(number)
        try:
            return folder.rename(self.snapshots / f"{_TRASH}{number}")
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return folder

    def trashed(self) -> list[Path]:
        """What an earlier daemon had no time to delete."""
        return [e for e in self.snapshots.iterdir() if e.name.startswith(_TRASH)]

    def discard(self, number: int) -> None:
        """Remove a snapshot that nobody has seen."""
        self._lift_limits(number)
        with suppress(OSError):
            self.destroy(self.folder(number))

    def destroy(self, path: Path) -> None:
        """Delete the folder of a snapshot, wherever it is by now; OSError if some of it stays."""
        remove_tree(path)
