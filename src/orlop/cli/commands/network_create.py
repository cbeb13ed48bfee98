"""`orlop network create`: make a network for containers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orlop.client import Connection
from orlop.errors import InvalidArgument

if TYPE_CHECKING:
    from orlop.wire.services.network_pb2 import Subnet


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--driver", default="bridge", help="bridge, macvlan or ipvlan (%(default)s)")
    add("-o", "--opt", action="append", default=[], metavar="KEY=VALUE",
        help="of macvlan and ipvlan: parent=INTERFACE (eth0.10 for a vlan), mode=MODE")  # fmt: skip
    add("--subnet", action="append", default=[], metavar="PREFIX",
        help="as 10.5.0.0/24, one of each family (default: one of the daemon's pool)")  # fmt: skip
    add("--gateway", action="append", default=[], metavar="ADDRESS",
        help="the host's address in a subnet (default: its first)")  # fmt: skip
    add("--ip-range", action="append", default=[], metavar="PREFIX",
        help="the part of a subnet that addresses are chosen from")  # fmt: skip
    add("--aux-address", action="append", default=[], metavar="NAME=ADDRESS",
        help="an address in a subnet that is another's, and that no container gets")  # fmt: skip
    add("--ipv6", action="store_true", help="a subnet of IPv6 as well")
    add("--internal", action="store_true", help="without a way out of it")
    add("--mtu", type=int, default=0, help="bytes (default: that of the host's default route)")
    add("--bridge", default="", metavar="INTERFACE", help="what to call its interface")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label it")
    add("name")


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import CreateNetworkRequest, Network

    options = _options(args)
    network = Network(
        name=args.name,
        driver=args.driver,
        subnets=_subnets(args),
        internal=args.internal,
        mtu=args.mtu,
        bridge=args.bridge or options.get("parent", ""),
        mode=options.get("mode", ""),
        labels=dict(text.partition("=")[::2] for text in args.label),
    )
    request = CreateNetworkRequest(network=network, ipv6=args.ipv6)
    print(connection.networks.create(request).network.id)
    return 0


def _subnets(args: argparse.Namespace) -> list[Subnet]:
    """Each with what is given of its family."""
    from orlop.wire.services.network_pb2 import Subnet

    families = {":" in each for each in args.subnet}
    gateways, ranges = (
        {":" in each: each for each in found} for found in (args.gateway, args.ip_range)
    )
    for option, given, found in (
        ("--gateway", args.gateway, gateways),
        ("--ip-range", args.ip_range, ranges),
    ):
        if len(found) < len(given) or not found.keys() <= families:
            raise InvalidArgument(f"a {option} is of a --subnet, one of each family at most")
    reserved: dict[bool, dict[str, str]] = {}
    for text in args.aux_address:
        name, _, address = text.partition("=")
        if not name or not address or (":" in address) not in families:
            raise InvalidArgument(f'--aux-address "{text}" is not NAME=ADDRESS, of a --subnet')
        reserved.setdefault(":" in address, {})[name] = address
    return [
        Subnet(
            subnet=each,
            gateway=gateways.get(":" in each, ""),
            ip_range=ranges.get(":" in each, ""),
            reserved=reserved.get(":" in each, {}),
        )
        for each in args.subnet
    ]


def _options(args: argparse.Namespace) -> dict[str, str]:
    """The driver's; Docker's names of the mode will do."""
    found = {}
    for text in args.opt:
        key, equals, value = text.partition("=")
        if key in ("macvlan_mode", "ipvlan_mode"):
            key = "mode"
        if not equals or key not in ("parent", "mode") or args.driver == "bridge":
            raise InvalidArgument(f'option "{text}": driver "{args.driver}" has none such')
        found[key] = value
    return found
