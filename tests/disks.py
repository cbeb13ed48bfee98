"""Small disks, which go with their context."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount, unmount_all
from tests.patience import wait_for

_TICKS = 50_000_000  # nanoseconds, in which a file's times may not have changed yet


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    """One of memory, where every page and file counts."""
    path = folder / "disk"
    path.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=32m,nr_inodes=2000",))], path)
    try:
        yield path
    finally:
        unmount(path, MNT_DETACH)


@contextmanager
def formatted(
    folder: Path, make: Sequence[str], size: int, options: str = "loop"
) -> Iterator[Path]:
    """One of `size` bytes in a file in `folder`, which `make` gives its filesystem.

    It is the same one again for the same folder.
    """
    image, path = folder / "image", folder / "mounted"
    if not image.exists():
        make_image(image, make, size)
    path.mkdir()
    subprocess.run(["mount", "-o", options, str(image), str(path)], check=True)
    try:
        yield path
    finally:
        unmount(path, MNT_DETACH)
        path.rmdir()
    await_end(image)


def make_image(image: Path, make: Sequence[str], size: int) -> None:
    """A file of `size` bytes, which `make` gives its filesystem."""
    # That of btrfs asks all loop devices that are mounted, of which one may be just going.
    for left in (2, 1, 0):
        with image.open("wb") as file:
            file.truncate(size)
        done = subprocess.run([*make, str(image)], check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return
        assert left, done.stderr
        time.sleep(0.5)


def await_end(image: Path) -> None:
    """Wait until a file is no longer mounted; where it was is gone, and with that others' copies.

    Who starts a container has all mounts of the host for a moment, by which the filesystem would
    live on, and be what is mounted the next time.
    """
    wait_for(lambda: not is_attached(image))


def is_attached(image: Path) -> bool:
    """Whether a loop device shows a file."""
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # another's has just gone
            if each.read_text().strip() == str(image):
                return True
    return False


def ext4(folder: Path) -> AbstractContextManager[Path]:
    """One that the kernel counts as a disk, whatever `folder` is on."""
    return formatted(folder, ["mkfs.ext4", "-q"], 64 << 20)


def numbers(path: Path) -> tuple[str, str]:
    """The major and the minor number of the disk that a file or folder is on."""
    device = path.stat().st_dev
    found = str(os.major(device)), str(os.minor(device))
    assert Path("/sys/dev/block", ":".join(found)).exists(), f'"{path}" is on no disk'
    return found


def btrfs(folder: Path, size: int) -> AbstractContextManager[Path]:
    """One whose data and metadata share their room, as small ones should."""
    return formatted(folder, ["mkfs.btrfs", "-q", "--mixed"], size)


class Mortal:
    """A disk of `size` bytes in a file in `folder`, whose power can be cut.

    What a filesystem has not written yet is in the kernel's memory, and not in that file: a copy of
    the file is what a machine finds whose power went in that moment.
    """

    def __init__(self, folder: Path, make: Sequence[str], size: int, options: str = "loop") -> None:
        self._options = options
        self.path = folder / "mounted"
        self._image = folder / "image"
        make_image(self._image, make, size)
        self._mount()

    def _mount(self) -> None:
        self.path.mkdir()
        subprocess.run(["mount", "-o", self._options, str(self._image), str(self.path)], check=True)

    def cut(self) -> None:
        """Cut the power, and start again; nobody may be at work."""
        found = self._image.with_name("found")
        wait_for(lambda: self._copied(found))
        self.close()
        found.replace(self._image)
        self._mount()

    def _copied(self, target: Path) -> bool:
        """Whether nothing was written meanwhile, by the kernel on its own."""
        before = self._written()
        if time.time_ns() - max(before) < _TICKS:
            return False
        subprocess.run(["cp", "--sparse=always", str(self._image), str(target)], check=True)
        return self._written() == before

    def _written(self) -> tuple[int, int]:
        status = self._image.stat()
        return status.st_mtime_ns, status.st_ctime_ns

    def close(self) -> None:
        """Unmount it, and all that is mounted on it."""
        unmount_all(self.path)
        if self.path.exists():
            self.path.rmdir()
            await_end(self._image)
