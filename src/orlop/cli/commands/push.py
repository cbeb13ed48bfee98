"""`orlop push`: push an image to a registry."""

from __future__ import annotations

import argparse

from orlop.cli import transfers
from orlop.cli.progress import showing
from orlop.client import Connection, images
from orlop.client.push import push_image


def configure(parser: argparse.ArgumentParser) -> None:
    transfers.add_platforms(parser, "all, which must be here")
    transfers.add_registry(parser)
    transfers.add_progress(parser)
    parser.add_argument("image")
    parser.add_argument("target", nargs="?", help="a reference (default: the image's name)")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.local_name(connection, args.image)
    target = images.full_name(args.target) if args.target else images.full_name(args.image)
    with transfers.advising(target), showing(args) as show:
        push_image(
            connection,
            name,
            target,
            platform_names=args.platforms,
            plain_http=args.plain_http,
            hosts_dir=args.hosts_dir,
            answer=transfers.answer(args),
            on_progress=show,
        )
    print(target)
    return 0
