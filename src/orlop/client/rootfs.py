"""Read single files of a snapshot, without mounting it where anybody can see it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from orlop.sys.fs import open_in_root
from orlop.sys.mount import MNT_DETACH, Mount, make_private, mount_all, unmount
from orlop.sys.process import CLONE_NEWNS, unshare

_FILE_MAX = 1 << 20


def read_texts_of(pid: int, paths: Sequence[str]) -> dict[str, str]:
    """The same inside the filesystem that the process `pid` sees; "" where there is none.

    A running container's own mounts must not be made a second time: two overlays on one upper
    folder spoil each other.
    """
    return {path: _read(f"/proc/{pid}/root", path) for path in paths}


def read_texts(mounts: Sequence[Mount], paths: Sequence[str]) -> dict[str, str]:
    """The texts of `paths` inside the filesystem that `mounts` make; "" for one that is not there.

    Links resolve inside that filesystem. The mount exists in a private mount namespace of a
    short-lived thread, so it is never visible and never left behind. Raises OSError when it cannot
    be mounted.
    """
    found: dict[str, str] = {}
    failure: list[BaseException] = []

    def read() -> None:
        try:
            unshare(CLONE_NEWNS)
            make_private(Path("/"))
            with tempfile.TemporaryDirectory(prefix="orlop-") as folder:
                mount_all(mounts, Path(folder))
                try:
                    found.update({path: _read(folder, path) for path in paths})
                finally:
                    unmount(Path(folder), MNT_DETACH)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failure.append(error)

    thread = threading.Thread(target=read, name="orlop-rootfs")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found


def _read(folder: str, path: str) -> str:
    try:
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return ""
    try:
        fd = open_in_root(root, path.lstrip("/"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    finally:
        os.close(root)
    with os.fdopen(fd, "rb") as file:
        return file.read(_FILE_MAX).decode(errors="replace")
