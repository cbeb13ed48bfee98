"""`orlop pull`: pull an image from a registry."""

from __future__ import annotations

import argparse

from orlop.cli.progress import pull
from orlop.client import Connection, images


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--platform", default="", metavar="OS/ARCH[/VARIANT]", help="default: this machine's")
    add("--snapshotter", default="", help="where to unpack it (default: the daemon's)")
    add("--no-unpack", action="store_true", help="fetch only")
    add("--plain-http", action="store_true", help="talk http, as to a registry on localhost")
    add("-q", "--quiet", action="store_true", help="no progress")
    add("image")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.full_name(args.image)
    pull(
        connection,
        name,
        platform=args.platform,
        snapshotter=args.snapshotter,
        unpack=not args.no_unpack,
        plain_http=args.plain_http,
        quiet=args.quiet,
    )
    print(name)
    return 0
