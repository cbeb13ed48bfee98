"""Read single files of a snapshot, without mounting it where anybody can see it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from orlop.errors import PermissionDenied
from orlop.sys.fs import open_in_root
from orlop.sys.mount import MNT_DETACH, Mount, make_slave, mount, mount_all, unmount
from orlop.sys.process import CLONE_NEWNS, unshare
from orlop.wire.types_pb2 import Mount as WireMount

T = TypeVar("T")

_FILE_MAX = 1 << 20


def read_texts_of(pid: int, paths: Sequence[str]) -> dict[str, str]:
    """The same inside the filesystem that the process `pid` sees; "" where there is none.

    A running container's own mounts must not be made a second time: two overlays on one upper
    folder spoil each other.
    """
    return {path: _read(f"/proc/{pid}/root", path) for path in paths}


def read_texts(mounts: Sequence[Mount], paths: Sequence[str]) -> dict[str, str]:
    """The texts of `paths` inside the filesystem that `mounts` make; "" for one that is not there.

    Links resolve inside that filesystem. Raises OSError when it cannot be mounted.
    """

    def read(folder: Path) -> dict[str, str]:
        mount_all(mounts, folder)
        try:
            return {path: _read(str(folder), path) for path in paths}
        finally:
            unmount(folder, MNT_DETACH)

    return in_private_mounts(read)


def in_private_mounts(action: Callable[[Path], T]) -> T:
    """What `action` gives, in a thread with mounts and a working directory of its own.

    It gets an empty folder to mount things in, which are never visible and never left behind.
    Raises PermissionDenied for an ordinary user.
    """
    found: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            _leave_mounts()
            make_slave(Path("/"))
            with _empty_folder() as folder:
                mount("tmpfs", folder, "tmpfs", 0, "mode=0700")
                try:
                    found.append(action(folder))
                finally:
                    os.chdir("/")
                    unmount(folder, MNT_DETACH)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failure.append(error)

    thread = threading.Thread(target=run, name="orlop-rootfs")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found[0]


def _leave_mounts() -> None:
    try:
        unshare(CLONE_NEWNS)
    except PermissionError:
        raise PermissionDenied(
            "only root can look into an image's filesystem: run orlop as root, whoever may use "
            "the daemon's socket"
        ) from None


def to_mount(mount: WireMount) -> Mount:
    return Mount(mount.type, mount.source, mount.target, tuple(mount.options))


@contextmanager
def _empty_folder() -> Iterator[Path]:
    # Not by `tempfile`: its import takes longer than all that is done in the folder.
    parents = (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")
    parent = next((each for each in parents if each and os.access(each, os.W_OK)), ".")
    folder = Path(parent, f"orlop-{os.urandom(6).hex()}").absolute()
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        folder.rmdir()


def _read(folder: str, path: str) -> str:
    try:
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return ""
    try:
        found = open_in_root(root, path.lstrip("/"), os.O_PATH)
    except OSError:
        return ""
    finally:
        os.close(root)
    try:
        # Nothing else is opened: to open a device does something to the host already.
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return ""
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY)
    except OSError:
        return ""
    finally:
        os.close(found)
    with os.fdopen(fd, "rb") as file:
        return file.read(_FILE_MAX).decode(errors="replace")
