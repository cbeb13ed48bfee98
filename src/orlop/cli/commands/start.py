"""`orlop start`: run stopped containers once more, in the background."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, containers
from orlop.client.starting import start


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    return for_each(
        args.containers, lambda name: start(connection, containers.get(connection, name))
    )
