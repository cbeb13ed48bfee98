"""What is found in a network namespace, and the networks of containers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

import msgspec

from orlop.errors import InvalidArgument
from orlop.network.operations import Route

PROTOCOLS = ("tcp", "udp", "sctp")
"""Those of published ports."""
_MAC = re.compile("[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_MOST_ALIASES = 64
_LONGEST_NAME = 253  # bytes of a name in DNS


class Counters(msgspec.Struct, frozen=True):
    """What has passed through an interface since it was made."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Link(msgspec.Struct, frozen=True):
    """An interface. `kind` is "" for hardware and lo; `master` is the bridge that it is in.

    `parent` is the index of what it is made on or its peer, 0 for none, which may be in another
    namespace. `addresses` are with prefixes.
    """

    index: int
    name: str
    kind: str = ""
    up: bool = False
    state: str = ""
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    master: str = ""
    parent: int = 0
    addresses: tuple[str, ...] = ()
    counters: Counters = Counters()


class Neighbour(msgspec.Struct, frozen=True):
    """Where an address is on an interface, as far as the kernel knows."""

    link: str
    address: str
    mac: str = ""
    permanent: bool = False


class Chain(msgspec.Struct, frozen=True):
    """A chain of iptables: the `rules` of one of ours in a `table`, as iptables-restore reads them.

    The built-in chain `hook` jumps there, or none does if that is "": first, or `last`. Without
    rules there is to be no such chain; nor where `hook` has another policy than `policy`, if that
    is given.
    """

    table: str
    name: str
    hook: str
    rules: tuple[str, ...] = ()
    last: bool = False
    policy: str = ""


class Subnet(msgspec.Struct, frozen=True):
    """A subnet of a network, as 10.88.0.0/20, and the host's address in it.

    Addresses of containers are chosen from `ip_range`, "" for all of it, and are none of those that
    are `reserved`, by a name each.
    """

    subnet: str
    gateway: str
    ip_range: str = ""
    reserved: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def version(self) -> int:
        return ipaddress.ip_network(self.subnet).version

    @property
    def prefix(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network of containers. `bridge` is its interface on the host.

    For the drivers macvlan and ipvlan that is what containers' interfaces are made on, in `mode`.
    An `internal` one leads nowhere else. `mtu` 0 is that of the host's default route.
    `created_at` is in UTC nanoseconds since the epoch.
    """

    id: str
    namespace: str
    name: str
    driver: str = "bridge"
    bridge: str = ""
    mode: str = ""
    internal: bool = False
    mtu: int = 0
    subnets: tuple[Subnet, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    created_at: int = 0

    @property
    def is_bridge(self) -> bool:
        return self.driver == "bridge"

    @property
    def publishes(self) -> bool:
        """Whether ports of the host can lead into it."""
        return self.is_bridge and not self.internal


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a container's interface: bits in a second that come in and go out, 0 for none.

    `burst` bytes may pass at once, 0 for as many as come in a tenth of a second.
    """

    rate_in: int = 0
    rate_out: int = 0
    burst: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container in a network: the host's end of its cable, its own, and its addresses."""

    namespace: str
    container: str
    network: str
    position: int
    link: str
    inside: str
    mac: str
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    rates: Rates = Rates()

    def address(self, version: int) -> str:
        """Its address of IP `version`, "" for none."""
        for each in self.addresses:
            if ipaddress.ip_address(each).version == version:
                return each
        return ""

    @property
    def versions(self) -> list[int]:
        """By which versions of IP a published port leads to it."""
        return [each for each in (4, 6) if self.address(each)]


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """`count` ports of the host from `host_port` on, that lead to those of a container.

    On all addresses of the host, or on `host_address`. A `host_port` 0 is any that is free; with a
    `host_port_end` it is the first that is free from `host_port` up to that one.
    """

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"
    host_address: str = ""
    count: int = 1
    host_port_end: int = 0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """That a container be in a network: by name, with addresses of its own choice or any."""

    network: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    rates: Rates = Rates()

    def check(self) -> None:
        """Raise InvalidArgument for a hardware address that is none of one interface.

        For rates that are no numbers of a record, and for more aliases, or longer ones, than all
        who are to know can be told.
        """
        where = f'network "{self.network}"'
        if self.mac and (not _MAC.fullmatch(self.mac) or int(self.mac[1], 16) % 2):
            raise InvalidArgument(
                f'{where}: hardware address "{self.mac}" is not XX:XX:XX:XX:XX:XX, of one interface'
            )
        limits = (self.rates.rate_in, self.rates.rate_out, self.rates.burst)
        if not all(0 <= each < 1 << 63 for each in limits):
            raise InvalidArgument(f"{where}: rates {limits} are not 0 to {(1 << 63) - 1}")
        if len(self.aliases) > _MOST_ALIASES:
            raise InvalidArgument(
                f"{where}: {len(self.aliases)} aliases: {_MOST_ALIASES} are the most"
            )
        for each in self.aliases:
            if len(each.encode()) > _LONGEST_NAME:
                raise InvalidArgument(
                    f'{where}: alias "{each[:20]}…" is longer than {_LONGEST_NAME} bytes'
                )

    def check_rates(self, network: Network) -> None:
        """Raise InvalidArgument for limits that a network cannot keep; CNI's plugins say theirs."""
        if self.rates.rate_in and network.driver not in ("bridge", "cni"):
            raise InvalidArgument(
                f'network "{network.name}": {network.driver} limits only what goes out'
            )


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a watch of a network namespace tells: an event, and the object that it is about.

    `event` is link, address or route, the same with "-deleted" behind, lost or synced; an
    address's interface is `interface`. The last one is "end", with an error's code and text.
    """

    event: str
    link: Link | None = None
    address: str = ""
    interface: str = ""
    route: Route | None = None
    code: int = 0
    text: str = ""
