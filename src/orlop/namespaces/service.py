"""`containerd.services.namespaces.v1.Namespaces`."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from orlop.namespaces.model import Namespace
from orlop.namespaces.store import NamespaceStore
from orlop.rpc import CallContext, Service
from orlop.wire.services import namespaces_pb2 as wire


class NamespacesService(Service):
    """Its calls name a namespace and need none of their own."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Namespaces"]

    def __init__(self, store: NamespaceStore) -> None:
        self._store = store

    def get(self, request: wire.GetNamespaceRequest, ctx: CallContext) -> wire.GetNamespaceResponse:
        """An unknown name is answered with no labels, not with an error: clients rely on it."""
        namespace = Namespace(request.name, self._store.labels(request.name))
        return wire.GetNamespaceResponse(namespace=_to_wire(namespace))

    def list(
        self, request: wire.ListNamespacesRequest, ctx: CallContext
    ) -> wire.ListNamespacesResponse:
        """The filter of the request has never had a meaning and is ignored."""
        return wire.ListNamespacesResponse(namespaces=map(_to_wire, self._store.list()))

    def create(
        self, request: wire.CreateNamespaceRequest, ctx: CallContext
    ) -> wire.CreateNamespaceResponse:
        self._store.create(_from_wire(request.namespace))
        return wire.CreateNamespaceResponse(namespace=request.namespace)

    def update(
        self, request: wire.UpdateNamespaceRequest, ctx: CallContext
    ) -> wire.UpdateNamespaceResponse:
        updated = self._store.update(_from_wire(request.namespace), request.update_mask)
        return wire.UpdateNamespaceResponse(namespace=_to_wire(updated))

    def delete(self, request: wire.DeleteNamespaceRequest, ctx: CallContext) -> Empty:
        self._store.delete(request.name)
        return Empty()


def _from_wire(message: wire.Namespace) -> Namespace:
    return Namespace(message.name, dict(message.labels))


def _to_wire(namespace: Namespace) -> wire.Namespace:
    return wire.Namespace(name=namespace.name, labels=namespace.labels)
