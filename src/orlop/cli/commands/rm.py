"""`orlop rm`: remove containers."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, containers


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="kill it first if it runs")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    return for_each(
        args.containers,
        lambda name: containers.remove(
            connection, containers.get(connection, name), force=args.force
        ),
    )
