"""`orlop checkpoint ls`: what checkpoints of a container there are, the oldest first."""

from __future__ import annotations

import argparse

from orlop.cli import table
from orlop.cli.checkpoints import add_folder_option
from orlop.client import Connection, checkpoints, containers


def configure(parser: argparse.ArgumentParser) -> None:
    add_folder_option(parser)
    parser.add_argument("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container)
    found = checkpoints.names(connection, container, args.checkpoint_dir)
    table.show(("CHECKPOINT NAME",), [(name,) for name in found])
    return 0
