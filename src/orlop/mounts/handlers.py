"""How a mount is made and unmade, by its type."""

from __future__ import annotations

import errno
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from orlop.errors import FailedPrecondition, ResourceExhausted
from orlop.sys import loop
from orlop.sys.aided import by_devices
from orlop.sys.mount import Mount, mount_one, unmount_all

HANDLED = ("erofs", "loop")
"""Types that are always mounted here: mount(2) alone cannot do them, or not everywhere."""


def make(item: Mount, point: Path) -> None:
    """Make a mount at `point`, which is not there yet; FailedPrecondition when it cannot be.

    ResourceExhausted where there is no room for it.
    """
    try:
        if item.type == "loop":
            _attach(item, point)
        else:
            point.mkdir(mode=0o700)
            _mount(item, point)
    except OSError as error:
        undo(point)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        failure = ResourceExhausted if full else FailedPrecondition
        raise failure(
            f'mount of "{item.source}" ({item.type}) failed: {error.strerror or error}'
        ) from error


def undo(point: Path) -> None:
    """Unmake what is at `point`; nothing there is no error. Who uses it still can go on to.

    Raises OSError for what stays.
    """
    if point.is_symlink():
        if is_there(point, ()):
            loop.detach(str(point.readlink()))
        point.unlink()
        _identity_of(point).unlink(missing_ok=True)
        return
    unmount_all(point)
    with suppress(FileNotFoundError):
        point.rmdir()


def is_there(point: Path, mounted: Collection[Path]) -> bool:
    """Whether it has not gone, as all do when the machine starts; `mounted` is what there is."""
    if not point.is_symlink():
        return point in mounted
    try:
        identity = _identity_of(point).read_text()
    except FileNotFoundError:
        return False
    return loop.shows(str(point.readlink()), identity)


def _identity_of(point: Path) -> Path:
    """Of a loop device, what it was made to show: it may be another's by now."""
    return point.with_suffix(".shows")


def _attach(item: Mount, point: Path) -> None:
    """The device goes with this process until the link to it is there."""
    device = loop.attach(Path(item.source), read_only="ro" in item.options)
    try:
        point.symlink_to(device.path)
        _identity_of(point).write_text(loop.identity(device))
        loop.keep(device)
    finally:
        device.close()


def _mount(item: Mount, point: Path) -> None:
    try:
        mount_one(item, point)
    except OSError as error:
        # Files are mounted as they are only by erofs, since Linux 6.12.
        if item.type != "erofs" or error.errno != errno.ENOTBLK:
            raise
        by_devices(item, point)
