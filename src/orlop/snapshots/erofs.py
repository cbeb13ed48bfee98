"""The erofs driver: a layer is an EROFS image, mounted; what is written goes to an overlay on it.

A folder has what containerd's snapshotter of the name has: a marker, `fs` and `work` of the
overlay, and `layer.erofs`. Images are mounted on `layer` when they are first needed, and stay so
until their snapshot goes or the daemon ends. A mount point exists only with its mount: who still
has an earlier daemon's mounts in hand gets an error, not an empty layer.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from orlop.erofs import folders
from orlop.erofs.image import Image
from orlop.erofs.tree import Node
from orlop.errors import DataLoss, NotFound, Unavailable
from orlop.snapshots import volatile
from orlop.snapshots.driver import Driver
from orlop.snapshots.model import Usage
from orlop.snapshots.overlayfs import OverlayDriver, kernel_options
from orlop.snapshots.quota import UNLIMITED, Limits
from orlop.sys.fs import SCARCE, sync_folder
from orlop.sys.loop import mount_image
from orlop.sys.mount import MNT_DETACH, Mount, unmount
from orlop.sys.removal import remove_tree

# Makes the image `folders.SEALED` of what one set of mounts has beyond another, in a folder.
Seal = Callable[[Sequence[Mount], Sequence[Mount], Path], None]

_MOUNTED = "layer"
_PROBE = ".probe"
_OF_LAYERS = (folders.MARKER, folders.LAYER, _MOUNTED)
_FOLDER = 0o40755
_BLOCK = 512
_NOT_NOW = (*SCARCE, errno.EBUSY, errno.ENOSPC)  # the last: there are too many mounts


class ErofsDriver(Driver):
    """Raises OSError where the kernel cannot mount such images."""

    rebase = True
    images = True
    layered = True
    maps_ids = OverlayDriver.maps_ids
    # Those of a tar first, so that it can be in the image as it is (Linux 6.4).
    _BLOCK_SIZES: ClassVar = (512, 4096)

    def __init__(self, root: Path, seal: Seal) -> None:
        super().__init__(root)
        self._seal = seal
        self._options = kernel_options()
        self._lock = threading.Lock()
        self._block_size = self._probe()
        for path in self.trashed():
            _let_go(path)
        for number in self.numbers():
            self._tidy(self.folder(number))

    @staticmethod
    def _tidy(folder: Path) -> None:
        """Delete what a daemon that was killed has left."""
        with suppress(OSError):  # it is mounted, or has no mount point, as it should
            (folder / _MOUNTED).rmdir()
        for path in folder.glob(f"{folders.UNFINISHED}*"):
            path.unlink()

    def _probe(self) -> int:
        """The size of blocks that this kernel takes.

        What it looks with stays: at the next start the disk may be full.
        """
        problem: OSError | None = None
        where = self.root / _PROBE
        point = where / _MOUNTED
        _unmount_all(point, where)  # an earlier daemon may have been killed here
        point.mkdir(parents=True, exist_ok=True)
        for size in self._BLOCK_SIZES:
            image = where / f"{size}.erofs"
            _make_empty(image, size)
            try:
                mount_image(image, point, "erofs")
            except OSError as error:
                problem = error
                continue
            unmount(point, MNT_DETACH)
            return size
        assert problem is not None
        raise problem

    def create(
        self,
        number: int,
        parents: Sequence[int],
        *,
        read_only: bool,
        limits: Limits = UNLIMITED,
    ) -> None:
        for parent in parents:
            self._mounted(parent)  # fails while there is no snapshot yet
        folder = self.folder(number)
        folder.mkdir(mode=0o700)
        content = folder / "fs"
        content.mkdir(mode=0o755)
        content.chmod(0o755)
        if not read_only:
            (folder / "work").mkdir(mode=0o711)
            folders.mark(folder, self._block_size)
            if any(limits):
                self._quota.start(number, [str(content), f"{folder}/work"])
                self._quota.limit(number, limits)

    def content(self, number: int) -> Path:
        return self.folder(number) / "fs"

    def mounts(self, number: int, parents: Sequence[int], *, read_only: bool) -> list[Mount]:
        below = [self._mounted(parent) for parent in parents]
        if self._image(number).exists():
            with self._lock:  # a layer was applied, and not committed yet
                below.insert(0, self._mount(number))
        if not below:
            access = "ro" if read_only else "rw"
            return [Mount("bind", str(self.content(number)), options=(access, "rbind"))]
        if read_only:
            return self._shown(below)
        options = (
            f"workdir={self.folder(number) / 'work'}",
            f"upperdir={self.content(number)}",
            "lowerdir=" + ":".join(map(str, below)),
        )
        more = volatile.options(str(self.folder(number)))
        return [Mount("overlay", "overlay", options=(*options, *more, *self._options))]

    def make_volatile(self, number: int) -> None:
        volatile.begin(str(self.folder(number)))

    def _image(self, number: int) -> Path:
        return self.folder(number) / folders.LAYER

    def _mounted(self, number: int) -> Path:
        """Where a committed snapshot's layer is mounted, by now.

        Raises DataLoss if it cannot be, Unavailable if just not now, NotFound if the snapshot has
        gone meanwhile.
        """
        with self._lock:
            self._take_sealed(number)
            return self._mount(number)

    def _mount(self, number: int) -> Path:
        """Mount the layer of a snapshot, unless it is; with the lock held."""
        folder = self.folder(number)
        point = folder / _MOUNTED
        if _is_mounted(point, folder):
            return point
        try:
            point.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise NotFound(f'folder "{folder}" of a snapshot, which has been removed') from None
        try:
            mount_image(self._image(number), point, "erofs")
        except OSError as error:
            point.rmdir()
            reason = (error.strerror or str(error)).lower()
            kind = Unavailable if error.errno in _NOT_NOW else DataLoss
            raise kind(f'layer "{self._image(number)}" cannot be mounted: {reason}') from error
        return point

    def _unmount(self, number: int) -> None:
        with self._lock:
            _let_go(self.folder(number))

    def seal(self, number: int, parents: Sequence[int]) -> Usage:
        """Into another image than the layer: what is mounted must stay on what it is on.

        Without the commit, files that were deleted would not be missed in the next one. Whoever
        writes an image has its name on disk; that of its folder comes now.
        """
        sync_folder(self.snapshots)
        sealed = self.folder(number) / folders.SEALED
        sealed.unlink(missing_ok=True)  # of a commit that came to nothing
        volatile.keep(str(self.folder(number)))
        if not _has_entries(self.content(number)) and self._image(number).exists():
            return _image_usage(self._image(number))
        left = self._view_of(parents)
        self._seal(left, self.mounts(number, parents, read_only=False), self.folder(number))
        return _image_usage(sealed)

    def _take_sealed(self, number: int) -> None:
        """Make what a committed snapshot was sealed as its layer; with the lock held."""
        folder = self.folder(number)
        sealed = folder / folders.SEALED
        if sealed.exists():
            _let_go(folder)  # a layer that was applied before, and is in this one
            sealed.replace(folder / folders.LAYER)

    def _view_of(self, parents: Sequence[int]) -> list[Mount]:
        """What a new snapshot on `parents` shows; nothing on none."""
        below = [self._mounted(parent) for parent in parents]
        return self._shown(below) if below else []

    def _shown(self, below: Sequence[Path]) -> list[Mount]:
        """Layers, read-only."""
        if len(below) == 1:
            return [Mount("bind", str(below[0]), options=("ro", "rbind"))]
        lower = "lowerdir=" + ":".join(map(str, below))
        return [Mount("overlay", "overlay", options=(lower, *self._options))]

    def settle(self, number: int) -> None:
        """The files that the layer was made of go, and what killed workers have left."""
        with self._lock:
            self._take_sealed(number)
        self._lift_limits(number)
        for path in self.folder(number).iterdir():
            if path.name in _OF_LAYERS:
                continue
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()

    def usage(self, number: int) -> Usage:
        """An image is one file, however many it shows."""
        image = _image_usage(self._image(number))
        if not self.content(number).exists():
            return image
        written = super().usage(number)
        if image.inodes and written.inodes == 1:
            return image
        return Usage(image.size + written.size, image.inodes + written.inodes)

    def trash(self, number: int) -> Path | None:
        with self._lock:  # who is about to mount the layer finds it gone
            path = super().trash(number)
            if path is not None:
                _let_go(path)
        return path

    def discard(self, number: int) -> None:
        self._unmount(number)
        super().discard(number)

    def close(self) -> None:
        for number in self.numbers():
            self._unmount(number)


def _make_empty(path: Path, block_size: int) -> None:
    """An image of nothing, unless it is there; whole, or not under its name."""
    if path.exists():
        return
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w+b") as file:
        Image(file.fileno(), block_size).finish(Node(_FOLDER), bytes(16))
        os.fsync(file.fileno())
    unfinished.replace(path)


def _is_mounted(point: Path, folder: Path) -> bool:
    try:
        return point.stat().st_dev != folder.stat().st_dev
    except FileNotFoundError:
        return False


def _let_go(folder: Path) -> None:
    """Unmount the layer that is in a folder."""
    point = folder / _MOUNTED
    with suppress(FileNotFoundError):
        _unmount_all(point, folder)
        point.rmdir()


def _unmount_all(point: Path, folder: Path) -> None:
    while _is_mounted(point, folder):
        unmount(point, MNT_DETACH)


def _image_usage(image: Path) -> Usage:
    try:
        return Usage(image.stat().st_blocks * _BLOCK, 1)
    except FileNotFoundError:
        return Usage(0, 0)


def _has_entries(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entries)
