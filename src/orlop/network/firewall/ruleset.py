"""What a packet filter is to do, in its own words for nobody yet.

Every part of it is typed: addresses, numbers, and names that were checked to be interfaces'.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orlop.network.model import Network, Port, Subnet


@dataclass(frozen=True, slots=True)
class Published:
    """A port mapping, and the addresses of the container that it leads to."""

    port: Port
    addresses: Sequence[str]

    def addresses_of(self, version: int) -> list[str]:
        """Where it leads to, from addresses of the host of this version of IP."""
        host = self.port.host_address
        if host and ipaddress.ip_address(host).version != version:
            return []
        return [each for each in self.addresses if ipaddress.ip_address(each).version == version]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Bridge networks and published ports.

    `names` says where DNS queries to a gateway are answered: the ports of UDP and TCP. `closed` are
    versions of IP by which the host is to forward nothing else, unless it comes from or goes to an
    interface of a kind that others have for containers, and that is none of those named. `bridges`
    are called like Docker's, and are not.
    """

    networks: Sequence[Network] = ()
    published: Sequence[Published] = ()
    names: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    closed: Mapping[int, Sequence[str]] = field(default_factory=dict)
    bridges: Sequence[str] = ()

    def strange(self) -> Iterator[tuple[int, Sequence[str]]]:
        """The versions of IP that are closed, and the interfaces that are named, without ours."""
        ours = {each.bridge for each in self.networks}
        for version, names in self.closed.items():
            yield version, [each for each in names if each not in ours]

    def names_of(self, subnet: Subnet) -> Iterator[tuple[str, int]]:
        """Protocols, and to which port of the host their port 53 of the gateway leads."""
        return zip(("udp", "tcp"), self.names.get(subnet.gateway, ()), strict=False)


SAMPLE = Ruleset(
    networks=[
        Network(
            id="0",
            namespace="sample",
            name="sample",
            bridge="sample0",
            subnets=(
                Subnet(subnet="192.0.2.0/24", gateway="192.0.2.1"),
                Subnet(subnet="2001:db8::/64", gateway="2001:db8::1"),
            ),
        )
    ],
    published=[Published(Port(container_port=1, host_port=1), ("192.0.2.2", "2001:db8::2"))],
    names={"192.0.2.1": (1, 1), "2001:db8::1": (1, 1)},
    closed={4: ("sample1",), 6: ()},
)
"""One with a bit of everything, to try whether a packet filter can do it."""
