"""`containerd.services.leases.v1.Leases`."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty

from orlop.leases.model import Lease, Resource
from orlop.leases.store import LeaseStore
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.wire.services import leases_pb2 as wire


class LeasesService(Service):
    """The thin face of the leases."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Leases"]

    def __init__(self, store: LeaseStore, collect: Callable[[CallContext], None]) -> None:
        """`collect` waits for a collection of garbage."""
        self._store = store
        self._collect = collect

    def create(self, request: wire.CreateRequest, ctx: CallContext) -> wire.CreateResponse:
        lease = self._store.create(ctx.require_namespace(), request.id, request.labels)
        return wire.CreateResponse(lease=_to_wire(lease))

    def delete(self, request: wire.DeleteRequest, ctx: CallContext) -> Empty:
        self._store.delete(ctx.require_namespace(), request.id)
        if request.sync:
            self._collect(ctx)
        return Empty()

    def list(self, request: wire.ListRequest, ctx: CallContext) -> wire.ListResponse:
        leases = self._store.list(ctx.require_namespace(), request.filters)
        return wire.ListResponse(leases=map(_to_wire, leases))

    def add_resource(self, request: wire.AddResourceRequest, ctx: CallContext) -> Empty:
        resource = Resource(request.resource.type, request.resource.id)
        self._store.add_resource(ctx.require_namespace(), request.id, resource)
        return Empty()

    def delete_resource(self, request: wire.DeleteResourceRequest, ctx: CallContext) -> Empty:
        resource = Resource(request.resource.type, request.resource.id)
        self._store.delete_resource(ctx.require_namespace(), request.id, resource)
        return Empty()

    def list_resources(
        self, request: wire.ListResourcesRequest, ctx: CallContext
    ) -> wire.ListResourcesResponse:
        kept = self._store.resources(ctx.require_namespace(), request.id)
        return wire.ListResourcesResponse(
            resources=[wire.Resource(type=resource.type, id=resource.id) for resource in kept]
        )


def _to_wire(lease: Lease) -> wire.Lease:
    return wire.Lease(id=lease.id, labels=lease.labels, created_at=timestamp(lease.created_at))
