"""`orlop stop`: ask containers to end, and kill them when they do not."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.cli.options import add_stopping
from orlop.client import Connection, containers
from orlop.client.starting import stop


def configure(parser: argparse.ArgumentParser) -> None:
    add_stopping(parser)
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    def end(name: str) -> None:
        container = containers.get(connection, name)
        stop(connection, container, grace=args.time, signal_name=args.signal)

    return for_each(args.containers, end)
