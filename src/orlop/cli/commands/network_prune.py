"""`orlop network prune`: remove all networks that no container is in."""

from __future__ import annotations

import argparse

from orlop.cli.terminal import agreed
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="do not ask first")
    parser.add_argument("--filter", action="append", default=[], metavar="FILTER",
        help="as name==NAME or labels.KEY==VALUE; one must match")  # fmt: skip


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import PruneNetworksRequest

    if not args.force and not agreed("remove all networks that no container is in?"):
        return 1
    request = PruneNetworksRequest(filters=args.filter)
    for name in connection.networks.prune(request).names:
        print(name)
    return 0
