"""The rooms of containers' networks and network namespaces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orlop.containers import ContainerStore
from orlop.daemon.rooms.ground import Ground
from orlop.network import Kernel, PinnedNamespaces
from orlop.network.cni import Cni, Configurations, Plugins, Results
from orlop.network.cni.results import CACHE
from orlop.network.cni_networks import CniNetworks
from orlop.network.connections import Connections
from orlop.network.dns.director import NameServer
from orlop.network.firewall import Backend, Firewall
from orlop.network.firewall.iptables import Iptables
from orlop.network.firewall.nftables import Nftables
from orlop.network.forwarding import Forwarding
from orlop.network.loopback import Loopback
from orlop.network.named import NamedNamespaces
from orlop.network.networks import Networks
from orlop.network.ports import HostPorts
from orlop.network.resuming import Resuming
from orlop.network.store import NetworkStore, Pools
from orlop.sys.process import CAP_NET_ADMIN, bounding_capabilities, in_user_namespace


@dataclass(frozen=True, slots=True)
class Networking:
    kernel: Kernel
    networks: Networks
    connections: Connections
    resuming: Resuming
    cni: CniNetworks
    pins: PinnedNamespaces
    named: NamedNamespaces
    unusable: str
    """Why this daemon can make no networks; "" if it can."""


def make(ground: Ground, containers: ContainerStore) -> Networking:
    """Also forgets the namespaces that are pinned no longer."""
    closing = ground.closing
    kernel = Kernel(ground.forks)
    closing.callback(kernel.close)
    networks = _networks(ground, kernel, containers)
    closing.callback(networks.names.close)
    loopback = Loopback(ground.forks)
    closing.callback(loopback.close)
    host_ports = HostPorts(loopback, networks.address_of)
    closing.callback(host_ports.close)
    cni = _cni(ground)
    closing.callback(cni.close)
    pins = PinnedNamespaces(ground.state / "netns", kernel)
    named = NamedNamespaces(pins, ground.database, ground.exchange)
    named.reap()
    connections = Connections(networks, kernel, host_ports, ground.exchange, cni)
    return Networking(
        kernel=kernel,
        networks=networks,
        connections=connections,
        resuming=Resuming(connections, networks, kernel, host_ports),
        cni=cni,
        pins=pins,
        named=named,
        unusable=_no_networks(),
    )


def _networks(ground: Ground, kernel: Kernel, containers: ContainerStore) -> Networks:
    wanted = ground.config.network
    pools = Pools(wanted.pool, wanted.pool_prefix, wanted.pool6, wanted.pool6_prefix)
    store = NetworkStore(ground.database, wanted.bridge, pools)
    names = NameServer(ground.forks, ground.state / "dns.sock", store, containers.get)
    backends: dict[str, Backend] = {
        "nftables": Nftables(kernel, wanted.bridge),
        "iptables": Iptables(kernel, wanted.bridge),
    }
    firewall = Firewall(backends, wanted.firewall, ground.state / "firewall")
    forwarding = Forwarding(kernel, ground.state / "forwarding", router=wanted.router)
    owner = f"orlop of {ground.config.root}"
    return Networks(store, kernel, ground.exchange, names, firewall, forwarding, owner)


def _cni(ground: Ground) -> CniNetworks:
    wanted = ground.config.network
    plugins = Plugins(
        wanted.cni_folders, timeout=wanted.cni_timeout, lock=ground.state / "cni-plugins.lock"
    )
    return CniNetworks(
        Cni(plugins, Results(ground.root / "cni")),
        Configurations(Path(wanted.cni_config)),
        ground.state / "cni",
        ground.exchange,
        others=Results(CACHE),
    )


def _no_networks() -> str:
    if in_user_namespace():
        return "the daemon is root in a user namespace only"
    if CAP_NET_ADMIN not in bounding_capabilities():
        return "the daemon lacks CAP_NET_ADMIN"
    return ""
