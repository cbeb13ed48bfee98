"""`orlop wait`: wait until containers have ended, and print their exit statuses."""

from __future__ import annotations

import argparse

from orlop.cli.each import failed
from orlop.client import Connection, containers
from orlop.errors import OrlopError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    status = 0
    for name in args.containers:
        try:
            print(containers.wait(connection, containers.get(connection, name).id))
        except OrlopError as error:
            status = failed(error)
    return status
