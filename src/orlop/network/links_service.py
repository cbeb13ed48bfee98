"""`orlop.services.network.v1.Links`: interfaces, addresses and routes of network namespaces."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import msgspec
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from orlop.errors import InvalidArgument, NotFound, Unavailable
from orlop.fork.worker import Spawner
from orlop.network import converting, failures
from orlop.network.changes import Watch
from orlop.network.connections import PidOf
from orlop.network.kernel import Kernel
from orlop.network.model import Link
from orlop.network.namespaces import PinnedNamespaces, of_process
from orlop.network.operations import AnyOperation
from orlop.rpc import CallContext, Service
from orlop.wire.services import links_pb2 as wire


class LinksService(Service):
    """The thin face of the kernel's network."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Links"]

    def __init__(
        self, kernel: Kernel, pins: PinnedNamespaces, pid_of: PidOf, forks: Spawner
    ) -> None:
        self._kernel = kernel
        self._pins = pins
        self._pid_of = pid_of
        self._forks = forks

    def apply(self, request: wire.ApplyRequest, ctx: CallContext) -> Empty:
        wanted = converting.operations(request, lambda place: self._ns(place, ctx))
        self._kernel.apply(*wanted)
        return Empty()

    # Interfaces

    def create(self, request: wire.CreateLinkRequest, ctx: CallContext) -> wire.CreateLinkResponse:
        ns = self._do(request.place, request.link, ctx).ns
        return wire.CreateLinkResponse(link=converting.link(self._link(ns, request.link.name)))

    def get(self, request: wire.GetLinkRequest, ctx: CallContext) -> wire.GetLinkResponse:
        found = self._link(self._ns(request.place, ctx), request.name)
        return wire.GetLinkResponse(link=converting.link(found))

    def list(self, request: wire.ListLinksInRequest, ctx: CallContext) -> wire.ListLinksInResponse:
        found = self._kernel.links(self._ns(request.place, ctx))
        return wire.ListLinksInResponse(links=map(converting.link, found))

    def update(self, request: wire.UpdateLinkRequest, ctx: CallContext) -> wire.UpdateLinkResponse:
        ns, wanted = self._do(request.place, request.link, ctx).ns, request.link
        name = wanted.rename if wanted.HasField("rename") else wanted.name
        return wire.UpdateLinkResponse(link=converting.link(self._link(ns, name)))

    def move(self, request: wire.MoveLinkRequest, ctx: CallContext) -> wire.MoveLinkResponse:
        if not request.link.HasField("to"):
            raise InvalidArgument(f'where interface "{request.link.name}" is to move is not said')
        self._do(request.place, request.link, ctx)
        there = self._ns(request.link.to, ctx)
        found = self._link(there, request.link.rename or request.link.name)
        return wire.MoveLinkResponse(link=converting.link(found))

    def delete(self, request: wire.DeleteLinkRequest, ctx: CallContext) -> Empty:
        self._do(request.place, request.link, ctx)
        return Empty()

    # Addresses, routes

    def add_address(self, request: wire.AddAddressRequest, ctx: CallContext) -> Empty:
        self._do(request.place, request.address, ctx)
        return Empty()

    def delete_address(self, request: wire.DeleteAddressRequest, ctx: CallContext) -> Empty:
        self._do(request.place, request.address, ctx)
        return Empty()

    def add_route(self, request: wire.AddRouteRequest, ctx: CallContext) -> Empty:
        self._do(request.place, request.route, ctx)
        return Empty()

    def delete_route(self, request: wire.DeleteRouteRequest, ctx: CallContext) -> Empty:
        self._do(request.place, request.route, ctx)
        return Empty()

    def list_routes(
        self, request: wire.ListRoutesRequest, ctx: CallContext
    ) -> wire.ListRoutesResponse:
        found = self._kernel.routes(self._ns(request.place, ctx))
        return wire.ListRoutesResponse(routes=map(converting.route, found))

    # All of it

    def inspect(
        self, request: wire.InspectPlaceRequest, ctx: CallContext
    ) -> wire.InspectPlaceResponse:
        ns = self._ns(request.place, ctx)
        return wire.InspectPlaceResponse(
            links=map(converting.link, self._kernel.links(ns)),
            routes=map(converting.route, self._kernel.routes(ns)),
            neighbours=[
                wire.Neighbour(**msgspec.structs.asdict(each))
                for each in self._kernel.neighbours(ns)
            ],
            rules=[wire.Rule(**msgspec.structs.asdict(each)) for each in self._kernel.rules(ns)],
            sysctls={name: self._kernel.sysctl(name, ns) for name in request.sysctls},
        )

    def stats(self, request: wire.LinkStatsRequest, ctx: CallContext) -> wire.LinkStatsResponse:
        ns = self._ns(request.place, ctx)
        found = [self._link(ns, request.name)] if request.name else self._kernel.links(ns)
        return wire.LinkStatsResponse(
            stats=[
                wire.LinkStats(
                    index=each.index, name=each.name, counters=converting.counters(each.counters)
                )
                for each in found
            ]
        )

    def watch(self, request: wire.WatchRequest, ctx: CallContext) -> Iterator[wire.WatchResponse]:
        ns = self._ns(request.place, ctx)
        with Watch(self._forks, ns, _words(request.place)) as watch:
            ctx.on_cancel(watch.close)
            try:
                yield from map(converting.change, watch)
            except Unavailable:
                ctx.check()  # it is the client that went
                raise
            finally:
                ctx.forget(watch.close)

    # Where

    def _do(self, place: wire.Place, message: Message, ctx: CallContext) -> AnyOperation:
        wanted = converting.operation(
            self._ns(place, ctx), message, lambda each: self._ns(each, ctx)
        )
        self._kernel.apply(wanted)
        return wanted

    def _link(self, ns: str, name: str) -> Link:
        for each in self._kernel.links(ns):
            if each.name == name:
                return each
        raise failures.error(f'interface "{name}"', ns, errno.ENODEV)

    def _ns(self, place: wire.Place, ctx: CallContext) -> str:
        """The path of a place's namespace, as operations have it."""
        namespace = ctx.require_namespace()
        match place.WhichOneof("place"):
            case "netns":
                return str(self._pins.path(namespace, place.netns))
            case "container_id":
                pid = self._pid_of(namespace, place.container_id)
                if not pid:
                    raise NotFound(f'running task of container "{place.container_id}"')
                return of_process(pid)
            case "path":
                if not place.path.startswith("/") or "\0" in place.path:
                    raise InvalidArgument(f'network namespace "{place.path}" is no absolute path')
                return place.path
            case "host" if place.host:
                return ""
        raise InvalidArgument("no network namespace is said: netns, path, container_id or host")


def _words(place: wire.Place) -> str:
    match place.WhichOneof("place"):
        case "container_id":
            return f'running task of container "{place.container_id}"'
        case "host":
            return "the daemon's network namespace"
        case _:
            return f'network namespace "{place.netns or place.path}"'
