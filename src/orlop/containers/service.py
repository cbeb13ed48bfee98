"""`containerd.services.containers.v1.Containers`."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from orlop.containers.model import Container
from orlop.containers.store import ContainerStore
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import set_timestamp
from orlop.rpc.encoding import Encoded
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
    ) -> wire.ListContainersResponse | Encoded:
        if not request.filters:
            return Encoded(b"".join(self._store.listing(ctx.require_namespace())))
        containers = self._store.list(ctx.require_namespace(), request.filters)
        response = wire.ListContainersResponse()
        for container in containers:
            _fill(response.containers.add(), container)
        return response

    def list_stream(
        self, request: wire.ListContainersRequest, ctx: CallContext
    ) -> Iterator[wire.ListContainerMessage | Encoded]:
        if not request.filters:
            # One at a time, in a field of the same number.
            yield from map(Encoded, self._store.listing(ctx.require_namespace()))
            return
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
    message = wire.Container()
    _fill(message, container)
    return message


def _fill(message: wire.Container, container: Container) -> None:
    """In place, which takes half the time of making messages that are then copied into a list."""
    message.id = container.id
    message.image = container.image
    message.runtime.name = container.runtime
    if container.runtime_options is not None:
        message.runtime.options.CopyFrom(container.runtime_options)
    if container.spec is not None:
        message.spec.CopyFrom(container.spec)
    message.snapshotter = container.snapshotter
    message.snapshot_key = container.snapshot_key
    message.sandbox = container.sandbox
    for label, text in container.labels.items():  # faster than `update`
        message.labels[label] = text
    for key, value in container.extensions.items():
        message.extensions[key].CopyFrom(value)
    set_timestamp(message.created_at, container.created_at)
    set_timestamp(message.updated_at, container.updated_at)
