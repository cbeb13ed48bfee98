"""The image that the machine boots: built once for all checkouts of a user."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

_SCRIPTS = Path(__file__).parents[2] / "scripts"
_UNUSED = 30 * 24 * 3600.0
"""Seconds after which an image that nobody booted is removed."""


def ready_image() -> Path:
    """The folder of the image that this checkout's scripts describe; built if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orlop" / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / _key()
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two checkouts do not build the same at once
        if not folder.is_dir():
            subprocess.run([_SCRIPTS / "vm" / "build-image.sh", folder], check=True)
        os.utime(folder)
        _remove_unused(cache)
    return folder


def _key() -> str:
    """A digest of everything that decides what is in the image."""
    digest = hashlib.sha256()
    for path in [*sorted((_SCRIPTS / "vm").iterdir()), _SCRIPTS / "install-packages.sh"]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _remove_unused(cache: Path) -> None:
    for folder in cache.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < time.time() - _UNUSED:
            shutil.rmtree(folder)
