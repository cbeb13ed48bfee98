"""`orlop network rm`: remove networks that no container is in."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="+")


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import DeleteNetworkRequest

    return for_each(
        args.network, lambda name: connection.networks.delete(DeleteNetworkRequest(name=name))
    )
