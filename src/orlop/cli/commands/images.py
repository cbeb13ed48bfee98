"""`orlop images`: list images."""

from __future__ import annotations

import argparse

from orlop.cli import table
from orlop.client import Connection, images
from orlop.rpc.convert import nanoseconds

_ID_LENGTH = 12


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")


def run(args: argparse.Namespace, connection: Connection) -> int:
    found = images.list_all(connection)
    if args.quiet:
        for image in found:
            print(image.name)
        return 0
    table.show(
        ("IMAGE", "DIGEST", "CREATED", "SIZE"),
        [
            (
                image.name,
                image.target.digest.partition(":")[2][:_ID_LENGTH],
                table.ago(nanoseconds(image.created_at) / 1e9),
                _size(connection, image),
            )
            for image in found
        ],
    )
    return 0


def _size(connection: Connection, image: images.Image) -> str:
    size = images.size(connection, image)
    return "incomplete" if size is None else table.size(size)
