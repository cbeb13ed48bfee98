"""`orlop pull`: pull an image from a registry."""

from __future__ import annotations

import argparse

from orlop.cli import transfers
from orlop.cli.progress import showing
from orlop.client import Connection, images
from orlop.client.pull import pull_image


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    transfers.add_platforms(parser, "this machine's")
    add("--snapshotter", default="", help="where to unpack it (default: the daemon's)")
    add("--no-unpack", action="store_true", help="fetch only")
    transfers.add_registry(parser)
    transfers.add_progress(parser)
    add("image")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.full_name(args.image)
    with transfers.advising(name), showing(args) as show:
        pull_image(
            connection,
            name,
            platform_names=args.platforms,
            all_platforms=args.all_platforms,
            snapshotter=args.snapshotter,
            unpack=not args.no_unpack,
            plain_http=args.plain_http,
            hosts_dir=args.hosts_dir,
            answer=transfers.answer(args),
            on_progress=show,
        )
    print(name)
    return 0
