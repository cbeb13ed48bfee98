"""`orlop netns rm`: give up named network namespaces."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="+")


def run(args: argparse.Namespace, connection: Connection) -> int:
    from orlop.wire.services.network_pb2 import DeleteNetNSRequest

    return for_each(args.name, lambda name: connection.netns.delete(DeleteNetNSRequest(name=name)))
