"""`orlop restart`: stop containers, if they run, and start them again."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.cli.options import add_stopping
from orlop.client import Connection, autoremoval, containers
from orlop.client.starting import start, stop


def configure(parser: argparse.ArgumentParser) -> None:
    add_stopping(parser)
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    def restart(name: str) -> None:
        container = containers.get(connection, name)
        with autoremoval.put_off(connection, container):
            stop(connection, container, grace=args.time, signal_name=args.signal)
            start(connection, container)

    return for_each(args.containers, restart)
