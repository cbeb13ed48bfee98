"""The bridge driver: which operations make a network, and put a container into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from orlop.network.model import Endpoint, Link, Network
from orlop.network.operations import (
    AddAddress,
    AddLink,
    AddRateLimit,
    AddRoute,
    AnyOperation,
    DeleteLink,
    Route,
    SetLink,
    SetSysctl,
)

EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
HAS_IPV6 = Path("/proc/sys/net/ipv6").exists()


def make(network: Network, mtu: int, owner: str) -> Iterator[AnyOperation]:
    """The host's side of a network, but for `forwarding`; what is there already stays."""
    name = network.bridge
    versions = {each.version for each in network.subnets}
    yield AddLink(name=name, kind="bridge", exist_ok=True, mtu=mtu, mac=mac(network), alias=owner)
    yield from ipv6_switch(network, "", name)
    if 6 in versions:  # no container is a router of the host
        yield SetSysctl(name=f"net/ipv6/conf/{name}/accept_ra", value="0")
    for subnet in network.subnets:
        address = f"{subnet.gateway}/{subnet.prefix}"
        yield AddAddress(link=name, address=address, exist_ok=True)
    yield SetLink(name=name, up=True, alias=owner)
    if 4 in versions:
        yield SetSysctl(name=f"net/ipv4/conf/{name}/route_localnet", value="1")


def unmake(network: Network) -> Iterator[AnyOperation]:
    yield DeleteLink(name=network.bridge, missing_ok=True)


def plug(network: Network, endpoint: Endpoint, ns: str, mtu: int) -> Iterator[AnyOperation]:
    """A cable from the bridge into the network namespace `ns`, with addresses and routes."""
    yield AddLink(
        name=endpoint.link,
        kind="veth",
        peer=endpoint.inside,
        peer_ns=ns,
        peer_mac=endpoint.mac,
        master=network.bridge,
        hairpin=True,  # for who reaches itself by a published port of the host
        mtu=mtu,
    )
    yield from ipv6_switch(network, ns, endpoint.inside)
    yield from limits(endpoint, ns)
    for subnet in network.subnets:
        address = f"{endpoint.address(subnet.version)}/{subnet.prefix}"
        yield AddAddress(ns=ns, link=endpoint.inside, address=address)
    yield SetLink(ns=ns, name=endpoint.inside, up=True)
    if not network.internal:
        for subnet in network.subnets:
            yield AddRoute(
                ns=ns,
                route=Route(
                    destination=EVERYWHERE[subnet.version],
                    gateway=subnet.gateway,
                    link=endpoint.inside,  # others may be in the same subnet
                    metric=endpoint.position,
                ),
            )
    yield SetLink(name=endpoint.link, up=True)  # last: see `is_whole`


def is_whole(network: Network, endpoint: Endpoint, here: Iterable[Link]) -> bool:
    """Whether a cable has been plugged in, to its end, by the interfaces of the host.

    What its container has done to its own end since is that one's business.
    """
    return any(
        each.name == endpoint.link and each.master == network.bridge and each.up for each in here
    )


def limits(endpoint: Endpoint, ns: str) -> Iterator[AddRateLimit]:
    """Both ends of a cable let pass what leaves through them."""
    rates = endpoint.rates
    if rates.rate_in:
        yield AddRateLimit(link=endpoint.link, rate=rates.rate_in, burst=rates.burst)
    if rates.rate_out:
        yield AddRateLimit(ns=ns, link=endpoint.inside, rate=rates.rate_out, burst=rates.burst)


def unplug(endpoint: Endpoint) -> Iterator[AnyOperation]:
    yield DeleteLink(name=endpoint.link, missing_ok=True)


def ipv6_switch(network: Network, ns: str, link: str) -> Iterator[SetSysctl]:
    """An interface without a subnet of IPv6 has no addresses of it at all."""
    if HAS_IPV6:
        enabled = any(each.version == 6 for each in network.subnets)
        value = "0" if enabled else "1"
        yield SetSysctl(ns=ns, name=f"net/ipv6/conf/{link}/disable_ipv6", value=value)


def mac(network: Network) -> str:
    """The bridge's own, as that of a bridge changes with what is plugged in otherwise."""
    digest = hashlib.sha256(network.id.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
