"""`orlop umount`: take images' files out of folders again."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, mounted


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="DIR", help="what was written there goes")


def run(args: argparse.Namespace, connection: Connection) -> int:
    return for_each(args.folders, lambda folder: mounted.take_away(connection, folder))
