"""An image's files as the root of a user namespace sees them.

Where the snapshotter can show files with other owners, labels ask it to. Elsewhere a copy of the
image's snapshot, its owners changed, is made once for each mapping, and containers start from that.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from orlop.client.connection import Connection
from orlop.client.rootfs import in_private_mounts
from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.oci.spec import ContainerSpec, IdRange
from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount
from orlop.wire.services import introspection_pb2, snapshots_pb2

UIDS_LABEL = "containerd.io/snapshot/uidmapping"
GIDS_LABEL = "containerd.io/snapshot/gidmapping"
_CAPABILITY = "remap-ids"
_TYPE = "io.containerd.snapshotter.v1"


def parent_and_labels(
    connection: Connection, snapshotter: str, parent: str, spec: ContainerSpec
) -> tuple[str, dict[str, str]]:
    """What the snapshot of a container with ids of its own is to be made with.

    Raises InvalidArgument for files whose owners are not mapped, OSError if they cannot be changed.
    """
    uids, gids = _text(spec.uid_map), _text(spec.gid_map)
    if _can_map(connection, snapshotter):
        return parent, {UIDS_LABEL: uids, GIDS_LABEL: gids}
    name = f"{parent}-{uids}-{gids}".replace(":", "-").replace(",", "+")
    if parent and not _exists(connection, snapshotter, name):
        _copy(connection, snapshotter, parent, name, spec)
    return (name if parent else ""), {}


def _text(ranges: Sequence[IdRange]) -> str:
    return ",".join(f"{each.inside}:{each.outside}:{each.size}" for each in ranges)


def _can_map(connection: Connection, snapshotter: str) -> bool:
    filters = [f"type=={_TYPE},id=={snapshotter}"]
    answer = connection.introspection.plugins(introspection_pb2.PluginsRequest(filters=filters))
    return any(_CAPABILITY in plugin.capabilities for plugin in answer.plugins)


def _exists(connection: Connection, snapshotter: str, name: str) -> bool:
    try:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=name)
        connection.snapshots.stat(request)
    except NotFound:
        return False
    return True


def _copy(
    connection: Connection, snapshotter: str, parent: str, name: str, spec: ContainerSpec
) -> None:
    key = f"{name}-{secrets.token_hex(4)}"
    prepared = connection.snapshots.prepare(
        snapshots_pb2.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent)
    )
    try:
        mounts = [Mount(m.type, m.source, m.target, tuple(m.options)) for m in prepared.mounts]
        in_private_mounts(lambda folder: _give_away(mounts, folder, spec))
        connection.snapshots.commit(
            snapshots_pb2.CommitSnapshotRequest(
                snapshotter=snapshotter,
                name=name,
                key=key,
                # It stays as long as the image's own, for the next container.
                labels={f"containerd.io/gc.bref.snapshot.{snapshotter}": parent},
            )
        )
    except BaseException as error:
        connection.snapshots.remove(
            snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        )
        if not isinstance(error, AlreadyExists):  # somebody else was faster
            raise


def _give_away(mounts: Sequence[Mount], folder: Path, spec: ContainerSpec) -> None:
    """Change the owners of all files; what chown takes from a mode is given back."""
    mount_all(mounts, folder)
    try:
        _change_owners(folder, spec)
    finally:
        unmount(folder, MNT_DETACH)


def _change_owners(folder: Path, spec: ContainerSpec) -> None:
    seen: set[int] = set()
    for where, folders, files in os.walk(folder):
        for path in [where, *(f"{where}/{name}" for name in (*folders, *files))]:
            info = Path(path).lstat()
            if info.st_ino in seen:
                continue
            seen.add(info.st_ino)
            uid, gid = _outside(info.st_uid, spec.uid_map), _outside(info.st_gid, spec.gid_map)
            os.chown(path, uid, gid, follow_symlinks=False)
            if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(info.st_mode):
                Path(path).chmod(stat.S_IMODE(info.st_mode))


def _outside(found: int, ranges: Sequence[IdRange]) -> int:
    for each in ranges:
        if each.inside <= found < each.inside + each.size:
            return each.outside + found - each.inside
    raise InvalidArgument(f"the image has files of id {found}, which --userns does not map")
