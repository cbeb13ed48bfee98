"""Small disks, which go with their context."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount


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
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        path.mkdir()
    subprocess.run(["mount", "-o", options, str(image), str(path)], check=True)
    try:
        yield path
    finally:
        unmount(path, MNT_DETACH)


def btrfs(folder: Path, size: int) -> AbstractContextManager[Path]:
    """One whose data and metadata share their room, as small ones should."""
    return formatted(folder, ["mkfs.btrfs", "-q", "--mixed"], size)
