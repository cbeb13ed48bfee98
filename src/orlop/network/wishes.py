"""What a container's labels say of its network: the contract with who makes the container.

The label `orlop/network` is a JSON object:

    mode      "networks", "host", "none" or "container:ID" (whose network it shares)
    networks  a list of objects: network, and maybe ip, ip6, mac, aliases, and rates: rate_in,
              rate_out (bits in a second), burst (bytes)
    hosts     a list of "NAME:ADDRESS", "host-gateway" standing for the host's own
    dns, dns_search, dns_options   what /etc/resolv.conf says instead of the host's

and `orlop/ports` is a JSON list of CNI port mappings (hostPort, containerPort, protocol, hostIP),
with `count` for ranges; a hostPort 0 is any that is free, and with a `hostPortEnd` it is the first
that is free from hostPort up to that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from orlop import typed
from orlop.errors import InvalidArgument
from orlop.network.model import Port, Wish
from orlop.network.ports import check

LABEL = "orlop/network"
PORTS_LABEL = "orlop/ports"
SHARED = "container:"
CONNECTABLE = ("networks", "none")
"""Modes of containers that may come into networks later."""
_PLAIN = ("networks", "host", "none")
_Number = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Wishes(msgspec.Struct, frozen=True):
    """All that a container wants of its network."""

    mode: str
    networks: tuple[Wish, ...] = ()
    hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()

    def unsaid(self) -> set[str]:
        """The files of which nothing is wished."""
        resolver = self.dns or self.dns_search or self.dns_options
        return {
            name
            for name, wished in (("hosts", self.hosts), ("resolv.conf", resolver))
            if not wished
        }


class _Mapping(msgspec.Struct, frozen=True):
    """As CNI's portmap plugin has it."""

    containerPort: _Number  # noqa: N815
    hostPort: _Number = 0  # noqa: N815
    protocol: str = "tcp"
    hostIP: str = ""  # noqa: N815
    count: int = 1
    hostPortEnd: _Number = 0  # noqa: N815


def of(container: str, labels: Mapping[str, str]) -> Wishes | None:
    """The wishes of a container, None if its labels say nothing; InvalidArgument for nonsense."""
    text = labels.get(LABEL)
    if not text:
        return None
    try:
        found = typed.decode(text, Wishes)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f'container "{container}": label {LABEL}: {error}') from None
    if found.mode not in _PLAIN and not found.mode.startswith(SHARED):
        raise InvalidArgument(f'container "{container}": network mode "{found.mode}" is unknown')
    return found


def ports(container: str, labels: Mapping[str, str]) -> list[Port]:
    """The ports that a container wants published."""
    try:
        found = typed.decode(labels.get(PORTS_LABEL) or "[]", list[_Mapping])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f'container "{container}": label {PORTS_LABEL}: {error}') from None
    made = [
        Port(
            container_port=each.containerPort,
            host_port=each.hostPort,
            protocol=each.protocol.lower(),
            host_address="" if each.hostIP in ("0.0.0.0", "::") else each.hostIP,
            count=each.count,
            host_port_end=each.hostPortEnd,
        )
        for each in found
    ]
    for each in made:
        check(each)
    return made
