"""`orlop kill`: send a signal to containers."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, containers


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="KILL", help="name or number (%(default)s)")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    number = containers.signal_number(args.signal)
    return for_each(
        args.containers,
        lambda name: containers.send_signal(
            connection, containers.get(connection, name).id, number
        ),
    )
