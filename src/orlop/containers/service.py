"""`containerd.services.containers.v1.Containers`."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from orlop.containers.model import Container
from orlop.containers.store import ContainerStore
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.wire.services import containers_pb2 as wire


class ContainersService(Service):
    """The thin face of the container records."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Containers"]

    def __init__(self, store: ContainerStore) -> None:
        self._store = store

    def get(self, request: wire.GetContainerRequest, ctx: CallContext) -> wire.GetContainerResponse:
        container = self._store.get(ctx.require_namespace(), request.id)
        return wire.GetContainerResponse(container=_to_wire(container))

    def list(
        self, request: wire.ListContainersRequest, ctx: CallContext
    ) -> wire.ListContainersResponse:
        containers = self._store.list(ctx.require_namespace(), request.filters)
        return wire.ListContainersResponse(containers=map(_to_wire, containers))

    def list_stream(
        self, request: wire.ListContainersRequest, ctx: CallContext
    ) -> Iterator[wire.ListContainerMessage]:
        for container in self._store.list(ctx.require_namespace(), request.filters):
            yield wire.ListContainerMessage(container=_to_wire(container))

    def create(
        self, request: wire.CreateContainerRequest, ctx: CallContext
    ) -> wire.CreateContainerResponse:
        container = self._store.create(ctx.require_namespace(), _from_wire(request.container))
        return wire.CreateContainerResponse(container=_to_wire(container))

    def update(
        self, request: wire.UpdateContainerRequest, ctx: CallContext
    ) -> wire.UpdateContainerResponse:
        container = self._store.update(
            ctx.require_namespace(), _from_wire(request.container), request.update_mask
        )
        return wire.UpdateContainerResponse(container=_to_wire(container))

    def delete(self, request: wire.DeleteContainerRequest, ctx: CallContext) -> Empty:
        self._store.delete(ctx.require_namespace(), request.id)
        return Empty()


def _from_wire(message: wire.Container) -> Container:
    return Container(
        id=message.id,
        image=message.image,
        runtime=message.runtime.name,
        runtime_options=message.runtime.options if message.runtime.HasField("options") else None,
        spec=message.spec if message.HasField("spec") else None,
        snapshotter=message.snapshotter,
        snapshot_key=message.snapshot_key,
        sandbox=message.sandbox,
        labels=dict(message.labels),
        extensions=dict(message.extensions),
    )


def _to_wire(container: Container) -> wire.Container:
    return wire.Container(
        id=container.id,
        image=container.image,
        runtime=wire.Container.Runtime(name=container.runtime, options=container.runtime_options),
        spec=container.spec,
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        sandbox=container.sandbox,
        labels=container.labels,
        extensions=container.extensions,
        created_at=timestamp(container.created_at),
        updated_at=timestamp(container.updated_at),
    )
