"""Which subnet a network gets, and which address a container: arithmetic only."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping

from orlop.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from orlop.network.model import Subnet

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_SMALLEST = {4: 30, 6: 126}


def subnet(
    text: str, gateway: str = "", ip_range: str = "", reserved: Mapping[str, str] | None = None
) -> Subnet:
    """A subnet as it is asked for; its gateway is its first address unless it is given.

    Raises InvalidArgument for what is no subnet or too small, and for a gateway, a range or
    reserved addresses that are not in it.
    """
    try:
        network = ipaddress.ip_network(without_zone(text))
    except ValueError as error:
        raise InvalidArgument(f'subnet "{text}": {error}') from None
    if network.prefixlen > _SMALLEST[network.version]:
        raise InvalidArgument(
            f'subnet "{text}" has no room: /{_SMALLEST[network.version]} is the smallest'
        )
    chosen = str(_usable(network, gateway) if gateway else network[1])
    kept = {name: str(_usable(network, each)) for name, each in (reserved or {}).items()}
    if chosen in kept.values():
        raise InvalidArgument(f'address "{chosen}" is the gateway of subnet "{network}"')
    return Subnet(str(network), chosen, ip_range and str(_part(network, ip_range)), kept)


def without_zone(text: str) -> str:
    """The text of an address or a prefix; ValueError for one with a zone, as fe80::1%eth0.

    One of containers has none, and the packet filter would refuse all of its rules for it.
    """
    if "%" in text:
        raise ValueError(f"'{text}' has a zone")
    return text


def _part(network: IpNetwork, text: str) -> IpNetwork:
    try:
        part = ipaddress.ip_network(without_zone(text))
    except ValueError as error:
        raise InvalidArgument(f'range "{text}": {error}') from None
    if part.version != network.version or part[0] not in network or part[-1] not in network:
        raise InvalidArgument(f'range "{text}" is no part of subnet "{network}"')
    return part


def _usable(network: IpNetwork, text: str) -> IpAddress:
    try:
        address = ipaddress.ip_address(without_zone(text))
    except ValueError as error:
        raise InvalidArgument(f'address "{text}": {error}') from None
    inside = address.version == network.version and address in network
    if not inside or address == network[0] or (network.version == 4 and address == network[-1]):
        raise InvalidArgument(f'address "{text}" is none of a host in subnet "{network}"')
    return address


def overlapping(wanted: Subnet, taken: Iterable[str]) -> str:
    """The first of `taken` that shares addresses with a subnet, "" for none."""
    network = ipaddress.ip_network(wanted.subnet)
    return next((str(each) for each in _narrow(taken, network) if network.overlaps(each)), "")


def free_subnet(
    pool: str, prefix: int, taken: Collection[str], avoided: Collection[str] = ()
) -> Subnet:
    """The first part of a pool that shares no address with `taken`; ResourceExhausted if none.

    If there is one, it shares none with what is to be `avoided` either.
    """
    network = ipaddress.ip_network(pool)
    for prefixes in ((*taken, *avoided), taken):
        others = _narrow(prefixes, network)
        for each in network.subnets(new_prefix=prefix):
            if not any(each.overlaps(other) for other in others):
                return Subnet(str(each), str(each[1]))
    raise ResourceExhausted(
        f'address pool "{pool}" has no free /{prefix} left; give a subnet, or remove networks'
    )


def _narrow(prefixes: Iterable[str], like: IpNetwork) -> list[IpNetwork]:
    """Those of one version of IP, but for such as lead everywhere: all, or one of its halves."""
    found = map(ipaddress.ip_network, prefixes)
    return [each for each in found if each.version == like.version and each.prefixlen > 1]


def choose(wanted: Subnet, taken: Collection[str], last: str, asked: str = "") -> str:
    """An address of a subnet for a container: the one `asked` for, or the next behind `last`.

    That is one of its range; what is reserved is taken. One that was given back rests as long as
    possible. Raises InvalidArgument for one outside, FailedPrecondition for one that is taken, and
    ResourceExhausted.
    """
    network = ipaddress.ip_network(wanted.subnet)
    gateway = ipaddress.ip_address(wanted.gateway)
    taken = {*taken, *wanted.reserved.values()}
    if asked:
        address = _usable(network, asked)
        if address == gateway or str(address) in taken:
            raise FailedPrecondition(f'address "{asked}" is taken in subnet "{network}"')
        return str(address)
    first, end = _numbers(network, wanted.ip_range)
    begin = int(ipaddress.ip_address(last)) - int(network[0]) if last else first - 1
    for step in range(1, min(end - first, len(taken) + 2) + 1):
        offset = (begin + step - first) % (end - first) + first
        address = network[offset]
        if address != gateway and str(address) not in taken:
            return str(address)
    where = f'range "{wanted.ip_range}" of subnet' if wanted.ip_range else "subnet"
    room = end - first - (first <= int(gateway) - int(network[0]) < end)
    raise ResourceExhausted(f'{where} "{network}" has none of its {room} addresses left')


def _numbers(network: IpNetwork, ip_range: str) -> tuple[int, int]:
    """The first address of a subnet that a container may have, and the one behind the last."""
    first, end = 1, network.num_addresses - (1 if network.version == 4 else 0)
    if ip_range:
        part = ipaddress.ip_network(ip_range)
        begin = int(part[0]) - int(network[0])
        first, end = max(first, begin), min(end, begin + part.num_addresses)
    return first, end
