"""What a container has changed of its image's files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from orlop.client import networks, snapshots
from orlop.client.connection import Connection
from orlop.client.rootfs import in_private_mounts, to_mount
from orlop.errors import Unknown
from orlop.sys.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from orlop.sys.mount import Mount, mount_all
from orlop.tar.changes import OPAQUE, WHITEOUT, Layer, RedirectedError
from orlop.tar.reader import Entry
from orlop.tar.sides import for_reading, upper_of
from orlop.wire.services import containers_pb2

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Kind(Enum):
    """By the letters that Docker shows."""

    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"


class Change(NamedTuple):
    """One file or folder, by its absolute path in the container."""

    kind: Kind
    path: str


def changes_of(connection: Connection, container: containers_pb2.Container) -> list[Change]:
    """What was added, changed and deleted, in the order of names; folders before what is in them.

    A running container's files are looked at where they are. Raises FailedPrecondition for a
    container without a snapshot.
    """
    parent = snapshots.parent_of(connection, container)
    right = [to_mount(mount) for mount in snapshots.mounts_of(connection, container)]
    with snapshots.view_of(connection, container.snapshotter, parent) as view:
        left = [to_mount(mount) for mount in view]
        ignored = networks.mount_points(container)
        return in_private_mounts(lambda folder: _compare(left, right, ignored, folder))


def _compare(
    left: Sequence[Mount], right: Sequence[Mount], ignored: Sequence[str], folder: Path
) -> list[Change]:
    lower, upper = folder / "lower", folder / "upper"
    found = upper_of(left, right)
    try:
        if found is not None:
            try:
                top = _mounted([found.mount], upper)
                return _walk(_mounted(left, lower), top, found.attributes, ignored)
            except RedirectedError:
                pass
        return _walk(_mounted(left, lower), _mounted(for_reading(right), upper), "", ignored)
    except OSError as error:
        raise Unknown(f"the container's files cannot be read: {error}") from error


def _mounted(mounts: Sequence[Mount], target: Path) -> int:
    target.mkdir(exist_ok=True)
    mount_all(for_reading(mounts), target)
    return os.open(target, _FOLDER)


def _walk(lower: int, upper: int, overlay: str, ignored: Sequence[str]) -> list[Change]:
    try:
        listing = _Listing(lower, upper)
        Layer(listing, overlay=overlay, mount_points=ignored).write(lower, upper)
        return listing.changes
    finally:
        os.close(lower)
        os.close(upper)


class _Listing:
    """In the place of an archive: takes down what would go into it."""

    def __init__(self, lower: int, upper: int) -> None:
        self._lower = lower
        self._upper = upper
        self.changes: list[Change] = []

    def entry(self, entry: Entry) -> None:
        folder, slash, name = entry.name.rpartition(b"/")
        if name == OPAQUE:
            hidden = set(self._names(self._lower, folder)) - set(self._names(self._upper, folder))
            for each in sorted(hidden):
                self._add(Kind.DELETED, folder + slash + each)
        elif name.startswith(WHITEOUT):
            self._add(Kind.DELETED, folder + slash + name.removeprefix(WHITEOUT))
        else:
            self._add(Kind.CHANGED if self._was_there(entry.name) else Kind.ADDED, entry.name)

    def content(self, pieces: Iterable[bytes | memoryview], size: int) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        pass

    def _add(self, kind: Kind, path: bytes) -> None:
        self.changes.append(Change(kind, f"/{os.fsdecode(path)}"))

    def _was_there(self, path: bytes) -> bool:
        flags = os.O_PATH | os.O_NOFOLLOW
        try:
            os.close(openat2(self._lower, os.fsdecode(path), flags, 0, RESOLVE_BENEATH))
        except OSError:
            return False
        return True

    @staticmethod
    def _names(root: int, path: bytes) -> Iterator[bytes]:
        fd = openat2(root, os.fsdecode(path), _FOLDER, 0, _INSIDE)
        try:
            return map(os.fsencode, os.listdir(fd))  # noqa: PTH208
        finally:
            os.close(fd)
