"""An image's files as the root of a user namespace sees them.

Where the snapshotter can show files with other owners, labels ask it to. Elsewhere a copy of the
image's snapshot, its owners changed, is made once for each mapping, and containers start from that.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from orlop.client.connection import Connection
from orlop.client.rootfs import in_private_mounts
from orlop.errors import AlreadyExists, FailedPrecondition, NotFound
from orlop.oci.spec import ContainerSpec, IdRange
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount
from orlop.sys.owners import change_owners
from orlop.wire.services import introspection_pb2, snapshots_pb2

UIDS_LABEL = "containerd.io/snapshot/uidmapping"
GIDS_LABEL = "containerd.io/snapshot/gidmapping"
_REMAPS, _ONLY_REMAPS = "remap-ids", "only-remap-ids"
_TYPE = "io.containerd.snapshotter.v1"


def parent_and_labels(
    connection: Connection, snapshotter: str, parent: str, spec: ContainerSpec
) -> tuple[str, dict[str, str]]:
    """What the snapshot of a container with ids of its own is to be made with.

    Raises InvalidArgument for files whose owners are not mapped, OSError if they cannot be changed,
    FailedPrecondition where neither is possible.
    """
    uids, gids = _text(spec.uid_map), _text(spec.gid_map)
    capabilities = _capabilities(connection, snapshotter)
    if _REMAPS in capabilities:
        return parent, {UIDS_LABEL: uids, GIDS_LABEL: gids}
    if _ONLY_REMAPS in capabilities:
        raise FailedPrecondition(
            f'snapshotter "{snapshotter}" cannot mount files with mapped ids on this host; '
            "slow_chown = true in orlopd's [snapshots] has them copied instead"
        )
    mapping = IdMapping(uids, gids)
    name = f"{parent}-{mapping.name}"
    if parent and not _exists(connection, snapshotter, name):
        _copy(connection, snapshotter, parent, name, mapping)
    return (name if parent else ""), {}


def _text(ranges: Sequence[IdRange]) -> str:
    return ",".join(f"{each.inside}:{each.outside}:{each.size}" for each in ranges)


def _capabilities(connection: Connection, snapshotter: str) -> set[str]:
    filters = [f"type=={_TYPE},id=={snapshotter}"]
    answer = connection.introspection.plugins(introspection_pb2.PluginsRequest(filters=filters))
    return {each for plugin in answer.plugins for each in plugin.capabilities}


def _exists(connection: Connection, snapshotter: str, name: str) -> bool:
    try:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=name)
        connection.snapshots.stat(request)
    except NotFound:
        return False
    return True


def _copy(
    connection: Connection, snapshotter: str, parent: str, name: str, mapping: IdMapping
) -> None:
    key = f"{name}-{secrets.token_hex(4)}"
    prepared = connection.snapshots.prepare(
        snapshots_pb2.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent)
    )
    try:
        mounts = [Mount(m.type, m.source, m.target, tuple(m.options)) for m in prepared.mounts]
        in_private_mounts(lambda folder: _give_away(mounts, folder, mapping))
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


def _give_away(mounts: Sequence[Mount], folder: Path, mapping: IdMapping) -> None:
    mount_all(mounts, folder)
    try:
        change_owners(str(folder), mapping)
    finally:
        unmount(folder, MNT_DETACH)
