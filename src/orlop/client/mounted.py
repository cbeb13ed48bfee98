"""Images whose files are shown in folders of this host."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import images, snapshots
from orlop.client.connection import Connection
from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, Unimplemented
from orlop.sys.mount import MNT_DETACH, Mount, Mounted, mount_all, mounted, unmount
from orlop.wire.services import mounts_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Mount as WireMount

_FOLDER = "orlop/mounted-on"
_IMAGE = "orlop/mounted-image"
_MOUNT = "orlop/mounted-as"
_ROOT = "containerd.io/gc.root"
_OF_SNAPSHOT = "containerd.io/gc.bref.snapshot."
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Shown(NamedTuple):
    """An image in a folder: read-only, or with a layer of its own for what is written.

    After a start of the machine it is not `there` any more, though what was written is kept.
    """

    folder: str
    image: str
    snapshotter: str
    writable: bool
    there: bool


def show(
    connection: Connection, name: str, folder: str, *, writable: bool = False, snapshotter: str = ""
) -> None:
    """Mount an image of this machine's platform on a folder, until `take_away`.

    `name` is a full reference. What is written there stays with the folder, and goes with it; the
    image does not change. Raises NotFound without the image, AlreadyExists where one is shown,
    FailedPrecondition where it cannot be mounted, or something else is.
    """
    target = _resolved(folder)
    if not target.is_dir():
        raise FailedPrecondition(f'"{folder}" is no folder')
    if _find(connection, target) is not None:
        raise AlreadyExists(f'an image is mounted on "{folder}": orlop umount it first')
    if any(each.point == target for each in mounted(target)):
        raise FailedPrecondition(f'"{folder}" is a mount point already')
    view = images.view(connection, images.get(connection, name), snapshotter=snapshotter)
    labels = {_FOLDER: str(target), _IMAGE: name, _ROOT: "mounted"}
    key = f"mounted-on {target}"
    make = connection.snapshots.prepare if writable else connection.snapshots.view
    kind = snapshots_pb2.PrepareSnapshotRequest if writable else snapshots_pb2.ViewSnapshotRequest
    mounts = make(
        kind(snapshotter=view.snapshotter, key=key, parent=view.chain_id, labels=labels)
    ).mounts
    with ExitStack() as undo:
        undo.callback(_forget, connection, view.snapshotter, key)
        try:
            mount_all(_ready(connection, key, view.snapshotter, list(mounts)), target)
        except OSError as error:
            raise FailedPrecondition(
                f'image "{name}" cannot be mounted on "{folder}": {error.strerror or error}'
            ) from error
        undo.callback(unmount, target, MNT_DETACH)
        _note(connection, view.snapshotter, key, target)
        undo.pop_all()


def take_away(connection: Connection, folder: str) -> None:
    """Unmount the image on a folder, and remove what was written there; raises NotFound.

    Raises FailedPrecondition while something else is mounted on top of it or below it.
    """
    target = _resolved(folder)
    found = _find(connection, target)
    if found is None:
        raise NotFound(f'image on "{folder}"')
    snapshotter, info = found
    if _is_there(info):
        others = [each for each in mounted(target) if _identity(each) != info.labels[_MOUNT]]
        if others:
            raise FailedPrecondition(f'something else is mounted on "{others[-1].point}"')
        unmount(target, MNT_DETACH)
    _forget(connection, snapshotter, info.name)


def shown(connection: Connection) -> list[Shown]:
    """All images of the namespace that are shown somewhere, by folder."""
    found = [
        Shown(
            info.labels[_FOLDER],
            info.labels[_IMAGE],
            snapshotter,
            info.kind == snapshots_pb2.ACTIVE,
            _is_there(info),
        )
        for snapshotter, info in _all(connection)
    ]
    return sorted(found)


def _resolved(folder: str) -> Path:
    return Path(os.path.realpath(folder))


def _note(connection: Connection, snapshotter: str, key: str, target: Path) -> None:
    """Have the snapshot's label tell which mount it is: others may be there some day."""
    (own,) = [each for each in mounted(target) if each.point == target]
    info = snapshots_pb2.Info(name=key, labels={_MOUNT: _identity(own)})
    mask = FieldMask(paths=[f"labels.{_MOUNT}"])
    connection.snapshots.update(
        snapshots_pb2.UpdateSnapshotRequest(snapshotter=snapshotter, info=info, update_mask=mask)
    )


def _identity(mount: Mounted) -> str:
    """Numbers of mounts are of one start of the machine."""
    return f"{_BOOT.read_text().strip()} {mount.identity}"


def _is_there(info: snapshots_pb2.Info) -> bool:
    own = info.labels.get(_MOUNT)
    folder = Path(info.labels[_FOLDER])
    return any(each.point == folder and _identity(each) == own for each in mounted(folder))


def _all(connection: Connection) -> list[tuple[str, snapshots_pb2.Info]]:
    found = []
    for snapshotter in snapshots.snapshotters(connection):
        request = snapshots_pb2.ListSnapshotsRequest(
            snapshotter=snapshotter, filters=[f'labels."{_FOLDER}"']
        )
        for batch in connection.snapshots.list(request):
            found += [(snapshotter, info) for info in batch.info]
    return found


def _find(connection: Connection, target: Path) -> tuple[str, snapshots_pb2.Info] | None:
    here = (each for each in _all(connection) if each[1].labels[_FOLDER] == str(target))
    return next(here, None)


def _ready(
    connection: Connection, key: str, snapshotter: str, mounts: list[WireMount]
) -> list[Mount]:
    """The mounts as mount(2) takes them: the daemon makes what is more than that."""
    request = mounts_pb2.ActivateRequest(
        name=key, mounts=mounts, labels={f"{_OF_SNAPSHOT}{snapshotter}": key}
    )
    try:
        mounts = list(connection.mounts.activate(request).info.system)
    except Unimplemented:
        pass
    return [Mount(m.type, m.source, m.target, tuple(m.options)) for m in mounts]


def _forget(connection: Connection, snapshotter: str, key: str) -> None:
    try:
        connection.mounts.deactivate(mounts_pb2.DeactivateRequest(name=key))
    except NotFound:
        pass
    connection.snapshots.remove(
        snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
    )
