"""How much may be written to a snapshot: asked for by labels, kept by the filesystem."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.sys import projects
from orlop.sys.fs import filesystem_type

SIZE_LABEL = "containerd.io/snapshot/quota.size"
"""On Prepare: bytes on disk that may be written, also as `10G`, in units of 1024."""
INODES_LABEL = "containerd.io/snapshot/quota.inodes"
"""On Prepare: files, folders and so on that may be made."""

_SIZE = re.compile(r"(\d+)([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = ("", "k", "m", "g", "t", "p")
_MAXIMUM = 1 << 62
# Ids from here on are ours: administrators and other programs begin at 1, kubelet at 2 ** 20.
_FIRST = 1 << 30
_ROOTS, _NUMBERS = 14, 16  # bits
_EXT4, _XFS, _BTRFS = 0xEF53, 0x58465342, 0x9123683E
_NAMES = {_EXT4: "ext4", _XFS: "xfs", _BTRFS: "btrfs", 0x01021994: "tmpfs", 0x794C7630: "overlay"}
_REMEDIES = {
    _EXT4: "tune2fs -O project,quota -Q prjquota its device while it is not mounted, and mount it "
    'with the option "prjquota"',
    _XFS: 'mount it with the option "prjquota" (the root: rootflags=prjquota for the kernel)',
    _BTRFS: 'there, the snapshotter "btrfs" can',
}


class Limits(NamedTuple):
    """What may be written to a snapshot, beyond what its parent has: 0 is no limit."""

    size: int = 0
    inodes: int = 0


UNLIMITED = Limits()


def wanted(labels: Mapping[str, str], default: Limits = UNLIMITED) -> Limits:
    """What labels ask for, `default` where they say nothing; raises InvalidArgument."""
    size, inodes = labels.get(SIZE_LABEL, ""), labels.get(INODES_LABEL, "")
    return Limits(
        size_of(SIZE_LABEL, size) if size else default.size,
        size_of(INODES_LABEL, inodes) if inodes else default.inodes,
    )


def size_of(name: str, text: str) -> int:
    """`10G` in bytes, or a plain number."""
    match = _SIZE.fullmatch(text)
    value = int(match[1]) * 1024 ** _UNITS.index(match[2].lower()) if match else -1
    if not 0 <= value <= _MAXIMUM:
        raise InvalidArgument(f'{name} "{text}" is not a size such as 512m or 10g')
    return value


class ProjectQuota:
    """Gives folders below `root` to projects with limits, one for each snapshot.

    Which one is noted in `root/quotas`: what the folder says may be changed by who writes to it.
    Ids follow from the number of the snapshot and from where the root is, so that two roots on one
    filesystem are apart; one that anybody uses is passed over.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._notes = Path(root, "quotas")
        self._lock = threading.Lock()

    def start(self, number: int, folders: Sequence[str]) -> None:
        """Give folders that are empty still to a project that nobody has.

        Raises FailedPrecondition where the filesystem cannot.
        """
        self._check()
        self._notes.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            project = self._free(number)
            self._note(number).write_text(f"{project}\n")
            for folder in folders:
                projects.give(folder, project)

    def limit(self, number: int, limits: Limits) -> None:
        """Limit what may be written beyond what there is in a snapshot's project."""
        project = int(self._note(number).read_text())
        now = projects.quota(self._root, project)
        projects.limit(
            self._root,
            project,
            now.size + limits.size if limits.size else 0,
            now.inodes + limits.inodes if limits.inodes else 0,
        )

    def size_limit(self, number: int) -> int:
        """Bytes that a snapshot may have on disk; 0 where nothing limits them."""
        try:
            return projects.quota(self._root, int(self._note(number).read_text())).size_limit
        except (OSError, ValueError):  # it has no project, or is just losing it
            return 0

    def has(self, number: int) -> bool:
        """Whether a snapshot has a project."""
        return self._note(number).exists()

    def release(self, number: int, folder: str) -> None:
        """Lift the limits of a snapshot that has some, and whose `folder` is to be deleted."""
        note = self._note(number)
        with suppress(OSError, ValueError):  # of a note that a power cut left empty
            projects.limit(self._root, int(note.read_text()), 0, 0)
            # Or else it could not be moved within a root that is in a project itself.
            projects.give(folder, projects.project_of(self._root), inherited=False)
        with suppress(OSError):
            note.unlink()

    def _note(self, number: int) -> Path:
        return self._notes / str(number)

    def _free(self, number: int) -> int:
        place = Path(self._root).stat().st_ino % (1 << _ROOTS)
        project = _FIRST + (place << _NUMBERS) + number % (1 << _NUMBERS)
        while any(projects.quota(self._root, project)):
            project += 1
        return project

    def _check(self) -> None:
        try:
            if projects.enforced(self._root):
                projects.project_of(self._root)
                projects.quota(self._root, _FIRST)
                return
            reason = "it does not enforce project quotas"
        except OSError as error:
            if error.errno == errno.EPERM:
                raise FailedPrecondition(
                    "only root of the host can limit the size of snapshots, not of a user namespace"
                ) from None
            reason = "it has no project quotas (they need Linux 5.14, built with quotas)"
        raise FailedPrecondition(_cannot(self._root, reason))


def _cannot(root: str, reason: str) -> str:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kind = filesystem_type(fd)
    finally:
        os.close(fd)
    remedy = _REMEDIES.get(kind, "put the daemon's root on ext4 or xfs with project quotas")
    name = _NAMES.get(kind, f"a filesystem of type {kind:#x}")
    return f'size of snapshots cannot be limited: "{root}" is on {name}, and {reason}: {remedy}'
