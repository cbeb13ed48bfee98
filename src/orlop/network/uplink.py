"""The drivers macvlan and ipvlan: containers as hosts of the network that the host itself is in.

A container's interface is made on the network's `bridge`, here its parent, and moved. There is
neither NAT nor a gateway of ours, and the host itself is not reached through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orlop.errors import InvalidArgument
from orlop.network.bridge import EVERYWHERE, ipv6_switch
from orlop.network.model import Endpoint, Link, Network
from orlop.network.operations import (
    AddAddress,
    AddLink,
    AddRateLimit,
    AddRoute,
    AnyOperation,
    DeleteLink,
    MoveLink,
    Route,
    SetLink,
    SetSysctl,
)

MODES = {
    "macvlan": ("bridge", "private", "vepa", "passthru"),
    "ipvlan": ("l2", "l3", "l3s"),
}
DRIVERS = tuple(MODES)
_ROUTED = ("l3", "l3s")


def check(network: Network) -> None:
    """Raise InvalidArgument for what makes no such network."""
    modes = MODES[network.driver]
    if network.mode and network.mode not in modes:
        raise InvalidArgument(
            f'{network.driver} mode "{network.mode}" is none of {", ".join(modes)}'
        )
    if not network.bridge:
        raise InvalidArgument(f"{network.driver}: name its parent, an interface of the host")
    if not network.subnets:
        raise InvalidArgument(f'{network.driver}: give the subnet that "{network.bridge}" is in')


def vlan_of(parent: str) -> tuple[str, int] | None:
    """The interface and the number of a vlan called as `eth0.10`; None for another name."""
    base, dot, number = parent.rpartition(".")
    if not dot or not base or not number.isdecimal() or not 1 <= int(number) <= 4094:
        return None
    return base, int(number)


def make(network: Network, owner: str) -> Iterator[AnyOperation]:
    """The parent, if it is a vlan's that is not there."""
    vlan = vlan_of(network.bridge)
    if vlan is not None:
        yield AddLink(
            name=network.bridge, kind="vlan", parent=vlan[0], id=vlan[1], alias=owner, up=True
        )


def plug(network: Network, endpoint: Endpoint, ns: str) -> Iterator[AnyOperation]:
    """An interface on the parent, in the network namespace `ns`, with addresses and routes."""
    inside = endpoint.inside
    yield AddLink(
        name=endpoint.link,
        kind=network.driver,
        parent=network.bridge,
        mode=network.mode or MODES[network.driver][0],
        mac=endpoint.mac,
        mtu=network.mtu,
        alias=_half(endpoint),
    )
    yield MoveLink(name=endpoint.link, to=ns, rename=inside)
    yield from ipv6_switch(network, ns, inside)
    yield from _announced(network, ns, inside)
    if endpoint.rates.rate_out:
        rate, burst = endpoint.rates.rate_out, endpoint.rates.burst
        yield AddRateLimit(ns=ns, link=inside, rate=rate, burst=burst)
    for subnet in network.subnets:
        address = f"{endpoint.address(subnet.version)}/{subnet.prefix}"
        yield AddAddress(ns=ns, link=inside, address=address)
    yield SetLink(ns=ns, name=inside, up=True)
    for subnet in () if network.internal else network.subnets:
        yield AddRoute(
            ns=ns,
            route=Route(
                destination=EVERYWHERE[subnet.version],
                gateway="" if network.mode in _ROUTED else subnet.gateway,
                link=inside,
                metric=endpoint.position,
            ),
        )
    yield SetLink(ns=ns, name=inside, alias=endpoint.link)  # last: see `is_whole`


def _half(endpoint: Endpoint) -> str:
    """The alias of one that is being made."""
    return f"{endpoint.link}, half"


def is_whole(network: Network, endpoint: Endpoint, inside: Iterable[Link]) -> bool:
    """Whether a container's interface was made, to its end, by those of its namespace.

    What the container has done to it since is that one's business.
    """
    return any(each.alias != _half(endpoint) for each in ours(network, endpoint, inside))


def ours(network: Network, endpoint: Endpoint, inside: Iterable[Link]) -> list[Link]:
    """A container's interface, among those of its namespace, by what it may not have changed."""
    return [each for each in inside if _is_ours(network, endpoint, each)]


def _is_ours(network: Network, endpoint: Endpoint, link: Link) -> bool:
    if link.alias in (endpoint.link, _half(endpoint)):
        return True
    addresses = {each.partition("/")[0] for each in link.addresses}
    same = link.mac == endpoint.mac.lower() or not addresses.isdisjoint(endpoint.addresses)
    return link.kind == network.driver and same


def _announced(network: Network, ns: str, link: str) -> Iterator[SetSysctl]:
    """Have the kernel tell the neighbours of an interface's addresses when it comes up.

    Who knew one of them of somebody else before would look for it there, for minutes.
    """
    versions = {each.version for each in network.subnets}
    if 4 in versions:
        yield SetSysctl(ns=ns, name=f"net/ipv4/conf/{link}/arp_notify", value="1")
    if 6 in versions:
        yield SetSysctl(ns=ns, name=f"net/ipv6/conf/{link}/ndisc_notify", value="1")


def unplug(
    network: Network, endpoint: Endpoint, ns: str, inside: Iterable[Link]
) -> Iterator[AnyOperation]:
    """Of a container that goes on, in whose namespace `ns` these are; others than ours stay.

    With its namespace the interface goes as well.
    """
    yield DeleteLink(name=endpoint.link, missing_ok=True)  # had it not been moved
    for each in ours(network, endpoint, inside):
        yield DeleteLink(ns=ns, name=each.name, missing_ok=True)
