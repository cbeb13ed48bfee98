"""`orlop network create`: make a network for containers."""

from __future__ import annotations

import argparse

from orlop.client import Connection
from orlop.errors import InvalidArgument


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--driver", default="bridge", help="(%(default)s)")
    add("--subnet", action="append", default=[], metavar="PREFIX",
        help="as 10.5.0.0/24, one of each family (default: one of the daemon's pool)")  # fmt: skip
    add("--gateway", action="append", default=[], metavar="ADDRESS",
        help="the host's address in a subnet (default: its first)")  # fmt: skip
    add("--ipv6", action="store_true", help="a subnet of IPv6 as well")
    add("--internal", action="store_true", help="without a way out of it")
    add("--mtu", type=int, default=0, help="bytes (default: that of the host's default route)")
    add("--bridge", default="", metavar="INTERFACE", help="what to call its interface")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label it")
    add("name")


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import CreateNetworkRequest, Network, Subnet

    gateways = {":" in each: each for each in args.gateway}
    if len(args.gateway) > len(args.subnet) or len(gateways) < len(args.gateway):
        raise InvalidArgument("a --gateway is of a --subnet, one of each family at most")
    network = Network(
        name=args.name,
        driver=args.driver,
        subnets=[
            Subnet(subnet=each, gateway=gateways.get(":" in each, "")) for each in args.subnet
        ],
        internal=args.internal,
        mtu=args.mtu,
        bridge=args.bridge,
        labels=dict(text.partition("=")[::2] for text in args.label),
    )
    request = CreateNetworkRequest(network=network, ipv6=args.ipv6)
    print(connection.networks.create(request).network.id)
    return 0
