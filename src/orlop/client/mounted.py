"""Images whose files are shown in folders of this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from orlop.client import images, snapshots
from orlop.client.connection import Connection
from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, Unimplemented
from orlop.sys.mount import Mount, mount_all, unmount_all
from orlop.wire.services import mounts_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Mount as WireMount

_FOLDER = "orlop/mounted-on"
_IMAGE = "orlop/mounted-image"
_ROOT = "containerd.io/gc.root"
_OF_SNAPSHOT = "containerd.io/gc.bref.snapshot."


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
    FailedPrecondition where it cannot be mounted.
    """
    target = os.path.realpath(folder)
    if not Path(target).is_dir():
        raise FailedPrecondition(f'"{folder}" is no folder')
    if _find(connection, target) is not None:
        raise AlreadyExists(f'an image is mounted on "{folder}": orlop umount it first')
    view = images.view(connection, images.get(connection, name), snapshotter=snapshotter)
    labels = {_FOLDER: target, _IMAGE: name, _ROOT: "mounted"}
    key = f"mounted-on {target}"
    if writable:
        prepare = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=view.snapshotter, key=key, parent=view.chain_id, labels=labels
        )
        mounts = connection.snapshots.prepare(prepare).mounts
    else:
        look = snapshots_pb2.ViewSnapshotRequest(
            snapshotter=view.snapshotter, key=key, parent=view.chain_id, labels=labels
        )
        mounts = connection.snapshots.view(look).mounts
    try:
        mount_all(_ready(connection, key, view.snapshotter, list(mounts)), Path(target))
    except OSError as error:
        _forget(connection, view.snapshotter, key)
        raise FailedPrecondition(
            f'image "{name}" cannot be mounted on "{folder}": {error.strerror or error}'
        ) from error
    except BaseException:
        _forget(connection, view.snapshotter, key)
        raise


def take_away(connection: Connection, folder: str) -> None:
    """Unmount the image on a folder, and remove what was written there; raises NotFound.

    Whatever else is mounted below the folder goes, too.
    """
    target = os.path.realpath(folder)
    found = _find(connection, target)
    if found is None:
        raise NotFound(f'image on "{folder}"')
    snapshotter, info = found
    unmount_all(Path(target))
    _forget(connection, snapshotter, info.name)


def shown(connection: Connection) -> list[Shown]:
    """All images of the namespace that are shown somewhere, by folder."""
    found = [
        Shown(
            info.labels[_FOLDER],
            info.labels[_IMAGE],
            snapshotter,
            info.kind == snapshots_pb2.ACTIVE,
            os.path.ismount(info.labels[_FOLDER]),
        )
        for snapshotter, info in _all(connection)
    ]
    return sorted(found)


def _all(connection: Connection) -> list[tuple[str, snapshots_pb2.Info]]:
    found = []
    for snapshotter in snapshots.snapshotters(connection):
        request = snapshots_pb2.ListSnapshotsRequest(
            snapshotter=snapshotter, filters=[f'labels."{_FOLDER}"']
        )
        for batch in connection.snapshots.list(request):
            found += [(snapshotter, info) for info in batch.info]
    return found


def _find(connection: Connection, target: str) -> tuple[str, snapshots_pb2.Info] | None:
    here = (each for each in _all(connection) if each[1].labels[_FOLDER] == target)
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
