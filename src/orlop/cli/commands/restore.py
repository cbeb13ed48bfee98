"""`orlop restore`: let a stopped container go on where a checkpoint was made."""

from __future__ import annotations

import argparse

from orlop.cli.checkpoints import add_folder_option
from orlop.client import Connection, checkpoints, containers
from orlop.client.starting import start


def configure(parser: argparse.ArgumentParser) -> None:
    add_folder_option(parser)
    parser.add_argument("container")
    parser.add_argument("checkpoint", nargs="?", default="", help="(default: the newest)")


def run(args: argparse.Namespace, connection: Connection) -> int:
    container = containers.get(connection, args.container)
    folder = args.checkpoint_dir
    start(connection, container, checkpoints.origin(connection, container, args.checkpoint, folder))
    print(args.container)
    return 0
