"""`orlop kill`: send a signal to containers."""

from __future__ import annotations

import argparse
import signal

from orlop.cli.each import for_each
from orlop.client import Connection, containers, restarts


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="KILL", help="name or number (%(default)s)")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    number = containers.signal_number(args.signal)

    def kill(name: str) -> None:
        container = containers.get(connection, name)
        containers.send_signal(connection, container.id, number)
        if number == signal.SIGKILL or number == containers.stop_signal(container):
            restarts.expect(connection, container, running=False)  # it is to end for good

    return for_each(args.containers, kill)
