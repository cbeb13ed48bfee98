"""`orlop.services.network.v1`: networks of containers, and network namespaces with names."""

from __future__ import annotations

import msgspec
from google.protobuf.empty_pb2 import Empty

from orlop.errors import InvalidArgument, NotFound
from orlop.network.checking import Checks
from orlop.network.connections import Connections, PidOf
from orlop.network.converting import link
from orlop.network.guests import Guest, Guests
from orlop.network.kernel import Kernel
from orlop.network.lasting import Lasting
from orlop.network.model import Endpoint, Network, Port, Rates, Subnet, Wish
from orlop.network.named import Named, NamedNamespaces
from orlop.network.namespaces import of_process
from orlop.network.networks import Networks, Wanted
from orlop.network.pools import subnet
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.wire.services import network_pb2 as wire


def _running(pid_of: PidOf, namespace: str, container: str) -> int:
    pid = pid_of(namespace, container)
    if not pid:
        raise NotFound(f'running task of container "{container}"')
    return pid


class NetworksService(Service):
    """The thin face of networks and of who is in them."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["Networks"]

    def __init__(
        self,
        networks: Networks,
        connections: Connections,
        lasting: Lasting,
        kernel: Kernel,
        pid_of: PidOf,
    ) -> None:
        self._guests = Guests(connections, kernel)
        self._checks = Checks(networks, connections, kernel, pid_of)
        self._networks = networks
        self._connections = connections
        self._lasting = lasting
        self._kernel = kernel
        self._pid_of = pid_of

    def create(
        self, request: wire.CreateNetworkRequest, ctx: CallContext
    ) -> wire.CreateNetworkResponse:
        asked = request.network
        wanted = Wanted(
            name=asked.name,
            driver=asked.driver or "bridge",
            subnets=tuple(
                subnet(each.subnet, each.gateway, each.ip_range, each.reserved)
                for each in asked.subnets
            ),
            ipv4=not request.no_ipv4,
            ipv6=request.ipv6,
            internal=asked.internal,
            mtu=asked.mtu,
            bridge=asked.bridge,
            mode=asked.mode,
            labels=dict(asked.labels),
        )
        made = self._networks.create(ctx.require_namespace(), wanted, lease=ctx.lease)
        return wire.CreateNetworkResponse(network=_network(made))

    def get(self, request: wire.GetNetworkRequest, ctx: CallContext) -> wire.GetNetworkResponse:
        found = self._connections.named(ctx.require_namespace(), request.name)
        return wire.GetNetworkResponse(network=_network(found))

    def list(
        self, request: wire.ListNetworksRequest, ctx: CallContext
    ) -> wire.ListNetworksResponse:
        found = self._connections.networks(ctx.require_namespace(), request.filters)
        return wire.ListNetworksResponse(networks=map(_network, found))

    def update(
        self, request: wire.UpdateNetworkRequest, ctx: CallContext
    ) -> wire.UpdateNetworkResponse:
        wanted = request.network
        made = self._networks.update(
            ctx.require_namespace(), wanted.id or wanted.name, wanted.labels, request.update_mask
        )
        return wire.UpdateNetworkResponse(network=_network(made))

    def delete(self, request: wire.DeleteNetworkRequest, ctx: CallContext) -> Empty:
        self._networks.remove(ctx.require_namespace(), request.name)
        return Empty()

    def prune(
        self, request: wire.PruneNetworksRequest, ctx: CallContext
    ) -> wire.PruneNetworksResponse:
        gone = self._networks.prune(ctx.require_namespace(), request.filters)
        return wire.PruneNetworksResponse(names=[each.name for each in gone])

    def attach(self, request: wire.AttachRequest, ctx: CallContext) -> wire.AttachResponse:
        namespace = ctx.require_namespace()
        wish = Wish(
            network=request.network,
            ip=request.ip,
            ip6=request.ip6,
            mac=request.mac,
            aliases=tuple(request.aliases),
            rates=_rates(request.rates),
        )
        container = request.container_id
        if request.keep:
            inherit = not request.HasField("rates")
            made = self._lasting.connect(namespace, container, wish, inherit=inherit)
        else:
            pid = _running(self._pid_of, namespace, container)
            made = self._connections.attach(namespace, container, wish, pid)
        return wire.AttachResponse(endpoint=self._endpoint(made) if made is not None else None)

    def detach(self, request: wire.DetachRequest, ctx: CallContext) -> Empty:
        detach = self._lasting.disconnect if request.keep else self._connections.detach
        detach(ctx.require_namespace(), request.container_id, request.network)
        return Empty()

    def inspect(self, request: wire.InspectRequest, ctx: CallContext) -> wire.InspectResponse:
        namespace, container = ctx.require_namespace(), request.container_id
        if bool(container) == bool(request.network):
            raise InvalidArgument("inspect either a container or a network")
        network = self._connections.named(namespace, request.network).id if request.network else ""
        ports = self._connections.ports_of(namespace, container) if container else []
        return wire.InspectResponse(
            endpoints=map(
                self._endpoint, self._connections.endpoints(namespace, container, network)
            ),
            ports=[
                wire.Port(
                    container_port=each.container_port,
                    host_port=each.host_port,
                    protocol=each.protocol,
                    host_address=each.host_address,
                    count=each.count,
                )
                for each in ports
            ],
        )

    def check(
        self, request: wire.CheckNetworkRequest, ctx: CallContext
    ) -> wire.CheckNetworkResponse:
        namespace, name = ctx.require_namespace(), request.network
        found = list(self._checks.of_network(namespace, name))
        if request.containers:
            found += self._checks.of_containers(namespace, name)
        flaws = [wire.Flaw(container_id=each.container, text=each.text) for each in found]
        return wire.CheckNetworkResponse(flaws=flaws)

    def attach_namespace(
        self, request: wire.AttachNamespaceRequest, ctx: CallContext
    ) -> wire.AttachNamespaceResponse:
        wish = Wish(
            network=request.network,
            ip=request.ip,
            ip6=request.ip6,
            mac=request.mac,
            rates=_rates(request.rates),
        )
        ports = [
            Port(
                container_port=each.container_port,
                host_port=each.host_port,
                protocol=each.protocol or "tcp",
                host_address=each.host_address,
                count=each.count or 1,
            )
            for each in request.ports
        ]
        namespace, guest = ctx.require_namespace(), _guest(request.id)
        return self._attached(self._guests.attach(namespace, guest, request.netns, wish, ports))

    def detach_namespace(self, request: wire.DetachNamespaceRequest, ctx: CallContext) -> Empty:
        self._guests.detach(ctx.require_namespace(), _guest(request.id))
        return Empty()

    def check_namespace(
        self, request: wire.CheckNamespaceRequest, ctx: CallContext
    ) -> wire.AttachNamespaceResponse:
        namespace, guest = ctx.require_namespace(), _guest(request.id)
        return self._attached(self._guests.check(namespace, guest, request.netns))

    def keep_namespaces(self, request: wire.KeepNamespacesRequest, ctx: CallContext) -> Empty:
        self._guests.keep(ctx.require_namespace(), request.group, list(map(_guest, request.ids)))
        return Empty()

    def _attached(self, endpoint: Endpoint) -> wire.AttachNamespaceResponse:
        network = self._connections.network_of(endpoint)
        return wire.AttachNamespaceResponse(
            endpoint=self._endpoint(endpoint), network=_network(network)
        )

    def stats(
        self, request: wire.NetworkStatsRequest, ctx: CallContext
    ) -> wire.NetworkStatsResponse:
        pid = _running(self._pid_of, ctx.require_namespace(), request.container_id)
        return wire.NetworkStatsResponse(links=map(link, self._kernel.links(of_process(pid))))

    def _endpoint(self, endpoint: Endpoint) -> wire.Endpoint:
        return wire.Endpoint(
            container_id=endpoint.container,
            network_id=endpoint.network,
            network=self._connections.network_of(endpoint).name,
            addresses=endpoint.addresses,
            mac=endpoint.mac,
            interface=endpoint.inside,
            host_interface=endpoint.link,
            aliases=endpoint.aliases,
            rates=wire.Rates(**msgspec.to_builtins(endpoint.rates)),
        )


class NetworkNamespacesService(Service):
    """The thin face of pinned network namespaces."""

    DESCRIPTOR = wire.DESCRIPTOR.services_by_name["NetworkNamespaces"]

    def __init__(self, named: NamedNamespaces, kernel: Kernel, pid_of: PidOf) -> None:
        self._named = named
        self._kernel = kernel
        self._pid_of = pid_of

    def create(
        self, request: wire.CreateNetNSRequest, ctx: CallContext
    ) -> wire.CreateNetNSResponse:
        made = self._named.create(
            ctx.require_namespace(), request.name, request.labels, lease=ctx.lease
        )
        return wire.CreateNetNSResponse(netns=_netns(made))

    def list(self, request: wire.ListNetNSRequest, ctx: CallContext) -> wire.ListNetNSResponse:
        found = self._named.list(ctx.require_namespace(), request.filters)
        return wire.ListNetNSResponse(netns=map(_netns, found))

    def update(
        self, request: wire.UpdateNetNSRequest, ctx: CallContext
    ) -> wire.UpdateNetNSResponse:
        wanted = request.netns
        made = self._named.update(
            ctx.require_namespace(), wanted.name, wanted.labels, request.update_mask
        )
        return wire.UpdateNetNSResponse(netns=_netns(made))

    def delete(self, request: wire.DeleteNetNSRequest, ctx: CallContext) -> Empty:
        self._named.delete(ctx.require_namespace(), request.name)
        return Empty()

    def list_links(
        self, request: wire.ListLinksRequest, ctx: CallContext
    ) -> wire.ListLinksResponse:
        namespace = ctx.require_namespace()
        if bool(request.netns) == bool(request.container_id):
            raise InvalidArgument("list the links of either a network namespace or a container")
        if request.netns:
            ns = str(self._named.pins.path(namespace, request.netns))
        else:
            ns = of_process(_running(self._pid_of, namespace, request.container_id))
        return wire.ListLinksResponse(links=map(link, self._kernel.links(ns)))


def _guest(id: wire.NamespaceID) -> Guest:
    return Guest(id.group, id.id, id.interface)


def _rates(asked: wire.Rates) -> Rates:
    return Rates(rate_in=asked.rate_in, rate_out=asked.rate_out, burst=asked.burst)


def _network(found: Network) -> wire.Network:
    return wire.Network(
        id=found.id,
        name=found.name,
        driver=found.driver,
        subnets=map(_subnet, found.subnets),
        internal=found.internal,
        mtu=found.mtu,
        bridge=found.bridge,
        mode=found.mode,
        labels=found.labels,
        created_at=timestamp(found.created_at) if found.created_at else None,
    )


def _netns(found: Named) -> wire.NetNS:
    return wire.NetNS(name=found.name, path=str(found.path), labels=found.labels)


def _subnet(found: Subnet) -> wire.Subnet:
    return wire.Subnet(**msgspec.structs.asdict(found))
