"""`orlop rename`: give a container another name."""

from __future__ import annotations

import argparse

from orlop.client import Connection, containers, names


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container")
    parser.add_argument("name")


def run(args: argparse.Namespace, connection: Connection) -> int:
    names.rename(connection, containers.get(connection, args.container), args.name)
    return 0
