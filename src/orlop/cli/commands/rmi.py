"""`orlop rmi`: remove images."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, images


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, connection: Connection) -> int:
    return for_each(
        args.images, lambda name: images.remove(connection, images.local_name(connection, name))
    )
