"""`orlop diff`: what a container has changed of its image's files."""

from __future__ import annotations

import argparse

from orlop.cli.terminal import printable
from orlop.client import Connection, containers
from orlop.client.changes import changes_of


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what a container has added (A), changed (C) and deleted (D)."
    parser.add_argument("container")


def run(args: argparse.Namespace, connection: Connection) -> int:
    for kind, path in changes_of(connection, containers.get(connection, args.container)):
        print(kind.value, printable(path))
    return 0
