"""The files of a container: what its snapshot is on, and its mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from orlop.client import leases
from orlop.client.connection import Connection
from orlop.errors import FailedPrecondition
from orlop.wire.services import containers_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Mount


def parent_of(connection: Connection, container: containers_pb2.Container) -> str:
    """The key of the snapshot that the container's is on, "" for none.

    Raises FailedPrecondition for a container without a snapshot.
    """
    if not container.snapshot_key:
        raise FailedPrecondition(f'container "{container.id}" has no snapshot of its own')
    request = snapshots_pb2.StatSnapshotRequest(
        snapshotter=container.snapshotter, key=container.snapshot_key
    )
    return str(connection.snapshots.stat(request).info.parent)


def mounts_of(connection: Connection, container: containers_pb2.Container) -> list[Mount]:
    """The mounts of the container's snapshot, none where it has no snapshot."""
    if not container.snapshot_key:
        return []
    request = snapshots_pb2.MountsRequest(
        snapshotter=container.snapshotter, key=container.snapshot_key
    )
    return list(connection.snapshots.mounts(request).mounts)


def snapshotters(connection: Connection) -> list[str]:
    """The snapshotters that work on this machine."""
    from orlop.wire.services.introspection_pb2 import PluginsRequest

    request = PluginsRequest(filters=["type==io.containerd.snapshotter.v1"])
    plugins = connection.introspection.plugins(request).plugins
    return [plugin.id for plugin in plugins if not plugin.init_err.code]


@contextmanager
def view_of(connection: Connection, snapshotter: str, parent: str) -> Iterator[list[Mount]]:
    """The mounts of a snapshot's files, read-only, for a while; none for the key ""."""
    if not parent:
        yield []
        return
    key = f"view-{os.urandom(6).hex()}"
    request = snapshots_pb2.ViewSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent)
    with leases.held(connection) as held:
        mounts = list(held.snapshots.view(request).mounts)
        try:
            yield mounts
        finally:
            held.snapshots.remove(
                snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
            )
