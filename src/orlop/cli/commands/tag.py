"""`orlop tag`: give an image another name."""

from __future__ import annotations

import argparse

from orlop.client import Connection, images
from orlop.client.transfers import tag


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image")
    parser.add_argument("name", help="the other name; what had it before loses it")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.full_name(args.name)
    tag(connection, images.local_name(connection, args.image), name)
    print(name)
    return 0
