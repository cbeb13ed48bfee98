"""A client of either daemon over gRPC, by grpcio; and the records that it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from orlop.client import Connection
from orlop.errors import FailedPrecondition, NotFound
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.wire.services import (
    containers_pb2,
    content_pb2,
    images_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    tasks_pb2,
)

SNAPSHOTTER = "overlayfs"
HOLD = "hold"
"""A lease that keeps what a test makes from the collector until its end."""


class Peer(Connection):
    """orlop's client library, but on grpcio and at whatever daemon serves containerd's API."""

    def __init__(self, address: str, namespace: str) -> None:
        self.address = address
        self.namespace = namespace
        self._lease = ""
        self._owner = True
        self._channel = GrpcChannel(address)  # type: ignore[assignment]

    def service(self, descriptor: ServiceDescriptor) -> Any:
        """A service that orlop's own client does not need."""
        return Client(descriptor, self._channel, namespace=self.namespace, lease=self._lease)


# What there is


def leases(peer: Connection, *filters: str) -> set[str]:
    """All but the test's own."""
    found = peer.leases.list(leases_pb2.ListRequest(filters=filters)).leases
    return {lease.id for lease in found} - {HOLD}


def resources(peer: Connection, lease: str) -> set[tuple[str, str]]:
    """What a lease keeps, by type and id."""
    answer = peer.leases.list_resources(leases_pb2.ListResourcesRequest(id=lease))
    return {(each.type, each.id) for each in answer.resources}


def images(peer: Connection, *filters: str) -> dict[str, str]:
    """Digests by names."""
    answer = peer.images.list(images_pb2.ListImagesRequest(filters=filters))
    return {image.name: image.target.digest for image in answer.images}


def containers(peer: Connection, *filters: str) -> set[str]:
    answer = peer.containers.list(containers_pb2.ListContainersRequest(filters=filters))
    return {container.id for container in answer.containers}


def snapshots(peer: Connection, *filters: str) -> dict[str, snapshots_pb2.Info]:
    request = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER, filters=filters)
    return {info.name: info for part in peer.snapshots.list(request) for info in part.info}


def blobs(peer: Connection, *filters: str) -> dict[str, dict[str, str]]:
    """Labels by digests."""
    request = content_pb2.ListContentRequest(filters=filters)
    found = [info for part in peer.content.list(request) for info in part.info]
    return {info.digest: dict(info.labels) for info in found}


def ingests(peer: Connection, *filters: str) -> dict[str, content_pb2.Status]:
    answer = peer.content.list_statuses(content_pb2.ListStatusesRequest(filters=filters))
    return {status.ref: status for status in answer.statuses}


def tasks(peer: Connection) -> set[str]:
    return {task.id for task in peer.tasks.list(tasks_pb2.ListTasksRequest()).tasks}


# The end


def clear(peer: Connection) -> None:
    """Remove all records of the namespace, and then it, which proves that it is empty."""
    for task in tasks(peer):
        peer.tasks.kill(tasks_pb2.KillRequest(container_id=task, signal=9, all=True))
        peer.tasks.wait(tasks_pb2.WaitRequest(container_id=task))
        peer.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=task))
    delete_container = containers_pb2.DeleteContainerRequest
    _each(containers(peer), lambda key: peer.containers.delete(delete_container(id=key)))
    delete_image = images_pb2.DeleteImageRequest
    _each(images(peer), lambda key: peer.images.delete(delete_image(name=key)))
    delete_lease = leases_pb2.DeleteRequest
    _each({*leases(peer), HOLD}, lambda key: peer.leases.delete(delete_lease(id=key)))
    collect(peer)
    remove = snapshots_pb2.RemoveSnapshotRequest
    while found := snapshots(peer):
        _each(
            set(found) - {info.parent for info in found.values()},
            lambda key: peer.snapshots.remove(remove(snapshotter=SNAPSHOTTER, key=key)),
        )
    _each(ingests(peer), lambda key: peer.content.abort(content_pb2.AbortRequest(ref=key)))
    delete_blob = content_pb2.DeleteContentRequest
    _each(blobs(peer), lambda key: peer.content.delete(delete_blob(digest=key)))
    # containerd numbers the snapshots of a new namespace as it did those of the one before: first
    # they have to be gone from disk.
    collect(peer)
    peer.namespaces.delete(namespaces_pb2.DeleteNamespaceRequest(name=peer.namespace))


def collect(peer: Connection) -> None:
    """Have garbage collected, and wait for it, as BuildKit does: by a lease that holds nothing."""
    made = peer.leases.create(leases_pb2.CreateRequest()).lease
    peer.leases.delete(leases_pb2.DeleteRequest(id=made.id, sync=True))


def _each(names: Iterable[str], remove: Callable[[str], object]) -> None:
    for name in names:
        try:
            remove(name)
        except (NotFound, FailedPrecondition):
            pass  # the collector is at it, too
