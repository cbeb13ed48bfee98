"""A snapshotter elsewhere, by containerd's snapshots service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import Unavailable, Unimplemented
from orlop.rpc.client import Channel, Client
from orlop.snapshots.model import Usage
from orlop.sys.mount import Mount
from orlop.wire.services import snapshots_pb2 as pb

T = TypeVar("T")


class RemoteSnapshotter:
    """The service behind `channel`, which is known at `address`; it is told to be called `name`.

    Methods raise what it answers, and Unavailable without it.
    """

    def __init__(self, name: str, address: str, channel: Channel) -> None:
        self.name = name
        self._address = address
        self._channel = channel
        self._clients: dict[str, Client] = {}

    def _call(self, namespace: str, action: Callable[[Any], T]) -> T:
        client = self._clients.get(namespace)
        if client is None:
            descriptor = pb.DESCRIPTOR.services_by_name["Snapshots"]
            client = Client(descriptor, self._channel, namespace=namespace)
            self._clients[namespace] = client
        try:
            return action(client)
        except Unavailable as error:
            raise Unavailable(
                f'snapshotter "{self.name}" at "{self._address}": {error.message}'
            ) from error

    def prepare(
        self, namespace: str, key: str, parent: str, labels: Mapping[str, str]
    ) -> list[Mount]:
        request = pb.PrepareSnapshotRequest(
            snapshotter=self.name, key=key, parent=parent, labels=labels
        )
        return _mounts(self._call(namespace, lambda client: client.prepare(request)))

    def view(self, namespace: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        request = pb.ViewSnapshotRequest(
            snapshotter=self.name, key=key, parent=parent, labels=labels
        )
        return _mounts(self._call(namespace, lambda client: client.view(request)))

    def mounts(self, namespace: str, key: str) -> list[Mount]:
        request = pb.MountsRequest(snapshotter=self.name, key=key)
        return _mounts(self._call(namespace, lambda client: client.mounts(request)))

    def commit(
        self, namespace: str, name: str, key: str, parent: str, labels: Mapping[str, str]
    ) -> None:
        request = pb.CommitSnapshotRequest(
            snapshotter=self.name, name=name, key=key, parent=parent, labels=labels
        )
        self._call(namespace, lambda client: client.commit(request))

    def remove(self, namespace: str, key: str) -> None:
        request = pb.RemoveSnapshotRequest(snapshotter=self.name, key=key)
        self._call(namespace, lambda client: client.remove(request))

    def update(self, namespace: str, key: str, labels: Mapping[str, str], mask: FieldMask) -> None:
        info = pb.Info(name=key, labels=labels)
        request = pb.UpdateSnapshotRequest(snapshotter=self.name, info=info, update_mask=mask)
        self._call(namespace, lambda client: client.update(request))

    def list(self, namespace: str, *filters: str) -> list[pb.Info]:
        request = pb.ListSnapshotsRequest(snapshotter=self.name, filters=filters)

        def collect(client: Any) -> list[pb.Info]:
            return [info for batch in client.list(request) for info in batch.info]

        return self._call(namespace, collect)

    def usage(self, namespace: str, key: str) -> Usage:
        request = pb.UsageRequest(snapshotter=self.name, key=key)
        answer = self._call(namespace, lambda client: client.usage(request))
        return Usage(answer.size, answer.inodes)

    def cleanup(self, namespace: str) -> None:
        """Have it delete what it owns no more; not all can be asked to."""
        request = pb.CleanupRequest(snapshotter=self.name)
        try:
            self._call(namespace, lambda client: client.cleanup(request))
        except Unimplemented:
            pass


def _mounts(answer: Any) -> list[Mount]:
    return [Mount(m.type, m.source, m.target, tuple(m.options)) for m in answer.mounts]
