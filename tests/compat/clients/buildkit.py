"""What BuildKit's worker does again and again: leases for its records, and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orlop.client import Connection
from orlop.wire.services import introspection_pb2, leases_pb2
from tests.compat.clients import work
from tests.compat.clients.peer import SNAPSHOTTER

LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP, ZSTD = f"{LAYER}+gzip", f"{LAYER}+zstd"
UNCOMPRESSED = "containerd.io/uncompressed"
FLAT, EXPIRE = "containerd.io/gc.flat", "containerd.io/gc.expire"
TEMPORARY = "buildkit/lease.temporary"


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def lease(peer: Connection, id: str = "", **labels: str) -> str:
    made: str = peer.leases.create(leases_pb2.CreateRequest(id=id, labels=labels)).lease.id
    return made


def record(peer: Connection, id: str) -> str:
    """The lease of a record of the cache; its snapshot is in it before it is made."""
    lease(peer, id, **{FLAT: now()})
    keep(peer, id, f"snapshots/{SNAPSHOTTER}", id)
    return id


def keep(peer: Connection, lease: str, type: str, id: str) -> None:
    resource = leases_pb2.Resource(type=type, id=id)
    peer.leases.add_resource(leases_pb2.AddResourceRequest(id=lease, resource=resource))


def end_lease(peer: Connection, id: str) -> None:
    peer.leases.delete(leases_pb2.DeleteRequest(id=id, sync=True))


def base(peer: Connection, files: Mapping[str, bytes], name: str = "base") -> str:
    """A committed snapshot of some files, held by its record."""
    record(peer, f"{name}-new")
    with work.mounted(work.prepare(peer, f"{name}-new")) as root:
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    record(peer, name)
    work.commit(peer, name, f"{name}-new")
    end_lease(peer, f"{name}-new")
    return name


def change(peer: Connection, parent: str, name: str, edit: Callable[[Path], object]) -> str:
    """A committed snapshot: another one, edited."""
    record(peer, name)
    with work.mounted(work.prepare(peer, f"{name}-new", parent)) as root:
        edit(root)
    work.commit(peer, name, f"{name}-new")
    return name


def plugins(peer: Connection, *filters: str) -> list[introspection_pb2.Plugin]:
    answer = peer.introspection.plugins(introspection_pb2.PluginsRequest(filters=filters))
    return list(answer.plugins)


def expiry(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat().replace("+00:00", "Z")
