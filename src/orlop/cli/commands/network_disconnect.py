"""`orlop network disconnect`: take a container out of a network."""

from __future__ import annotations

import argparse

from orlop.client import Connection, containers, networks


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network")
    parser.add_argument("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    networks.disconnect(connection, containers.get(connection, args.container).id, args.network)
    return 0
