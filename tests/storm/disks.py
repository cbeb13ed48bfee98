"""Small disks, which go with their context."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
def btrfs(folder: Path, size: int) -> Iterator[Path]:
    """One of `size` bytes with btrfs, in a file in `folder`."""
    image, path = folder / "btrfs.image", folder / "btrfs"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.btrfs", "-q", "--mixed", str(image)], check=True)
    path.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    try:
        yield path
    finally:
        unmount(path, MNT_DETACH)
