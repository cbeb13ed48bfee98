"""`containerd.services.sandbox.v1.Store`."""

from __future__ import annotations

from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.sandboxes.model import Sandbox
from orlop.sandboxes.store import SandboxStore
from orlop.wire import types_pb2 as types
from orlop.wire.services import sandbox_pb2 as wire


class SandboxStoreService(Service):
    """The thin face of the sandbox records."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Store"]

    def __init__(self, store: SandboxStore) -> None:
        self._store = store

    def create(
        self, request: wire.StoreCreateRequest, ctx: CallContext
    ) -> wire.StoreCreateResponse:
        made = self._store.create(ctx.require_namespace(), _from_wire(request.sandbox))
        return wire.StoreCreateResponse(sandbox=_to_wire(made))

    def update(
        self, request: wire.StoreUpdateRequest, ctx: CallContext
    ) -> wire.StoreUpdateResponse:
        updated = self._store.update(
            ctx.require_namespace(), _from_wire(request.sandbox), request.fields
        )
        return wire.StoreUpdateResponse(sandbox=_to_wire(updated))

    def delete(
        self, request: wire.StoreDeleteRequest, ctx: CallContext
    ) -> wire.StoreDeleteResponse:
        self._store.delete(ctx.require_namespace(), request.sandbox_id)
        return wire.StoreDeleteResponse()

    def list(self, request: wire.StoreListRequest, ctx: CallContext) -> wire.StoreListResponse:
        found = self._store.list(ctx.require_namespace(), request.filters)
        return wire.StoreListResponse(list=map(_to_wire, found))

    def get(self, request: wire.StoreGetRequest, ctx: CallContext) -> wire.StoreGetResponse:
        found = self._store.get(ctx.require_namespace(), request.sandbox_id)
        return wire.StoreGetResponse(sandbox=_to_wire(found))


def _from_wire(message: types.Sandbox) -> Sandbox:
    return Sandbox(
        id=message.sandbox_id,
        runtime=message.runtime.name,
        runtime_options=message.runtime.options if message.runtime.HasField("options") else None,
        spec=message.spec if message.HasField("spec") else None,
        sandboxer=message.sandboxer,
        labels=dict(message.labels),
        extensions=dict(message.extensions),
    )


def _to_wire(sandbox: Sandbox) -> types.Sandbox:
    return types.Sandbox(
        sandbox_id=sandbox.id,
        runtime=types.Sandbox.Runtime(name=sandbox.runtime, options=sandbox.runtime_options),
        spec=sandbox.spec,
        sandboxer=sandbox.sandboxer,
        labels=sandbox.labels,
        extensions=sandbox.extensions,
        created_at=timestamp(sandbox.created_at),
        updated_at=timestamp(sandbox.updated_at),
    )
