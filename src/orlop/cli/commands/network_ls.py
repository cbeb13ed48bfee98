"""`orlop network ls`: list networks."""

from __future__ import annotations

import argparse

from orlop.cli import form
from orlop.client import Connection

_COLUMNS = {"NETWORK ID": "ID", "NAME": "Name", "DRIVER": "Driver", "SUBNETS": "Subnets"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="FILTER",
        help="as name==NAME or labels.KEY==VALUE; one must match")  # fmt: skip
    form.add_option(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import ListNetworksRequest

    found = connection.networks.list(ListNetworksRequest(filters=args.filter)).networks
    if args.quiet:
        for each in found:
            print(each.id)
        return 0
    rows = [
        {
            "ID": each.id,
            "Name": each.name,
            "Driver": each.driver,
            "Subnets": ", ".join(subnet.subnet for subnet in each.subnets),
            "Bridge": each.bridge,
            "Internal": each.internal,
            "Labels": dict(each.labels),
        }
        for each in found
    ]
    form.show(rows, _COLUMNS, args.format)
    return 0
