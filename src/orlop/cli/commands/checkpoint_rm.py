"""`orlop checkpoint rm`: remove a checkpoint of a container."""

from __future__ import annotations

import argparse

from orlop.cli.checkpoints import add_folder_option
from orlop.client import Connection, checkpoints, containers


def configure(parser: argparse.ArgumentParser) -> None:
    add_folder_option(parser)
    parser.add_argument("container")
    parser.add_argument("checkpoint")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container)
    checkpoints.remove(connection, container, args.checkpoint, args.checkpoint_dir)
    return 0
