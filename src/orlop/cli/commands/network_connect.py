"""`orlop network connect`: put a container into one more network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orlop.cli import options
from orlop.cli.run_network import rate
from orlop.client import Connection, containers, networks

if TYPE_CHECKING:
    from orlop.wire.services.network_pb2 import Rates


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ip", default="", metavar="ADDRESS", help="its address there")
    add("--ip6", default="", metavar="ADDRESS", help="its address of IPv6 there")
    add("--alias", action="append", default=[], metavar="NAME", help="another name of it")
    add("--network-rate-in", type=_limit, metavar="RATE",
        help="bits in a second that it gets at most there, 0 for no limit "
        "(without one of these three: as in its first network)")  # fmt: skip
    add("--network-rate-out", type=_limit, metavar="RATE",
        help="bits in a second that it sends at most")  # fmt: skip
    add("--network-burst", type=options.memory, metavar="SIZE",
        help="bytes at once (default: of a tenth of a second)")  # fmt: skip
    add("network")
    add("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container).id
    networks.connect(
        connection,
        container,
        args.network,
        ip=args.ip,
        ip6=args.ip6,
        aliases=args.alias,
        rates=_rates(args),
    )
    return 0


def _limit(text: str) -> int:
    return 0 if text == "0" else rate(text)


def _rates(args: argparse.Namespace) -> Rates | None:
    from orlop.wire.services.network_pb2 import Rates

    given = (args.network_rate_in, args.network_rate_out, args.network_burst)
    if given == (None, None, None):
        return None
    rate_in, rate_out, burst = (each or 0 for each in given)
    return Rates(rate_in=rate_in, rate_out=rate_out, burst=burst)
