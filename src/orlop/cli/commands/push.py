"""`orlop push`: push an image to a registry."""

from __future__ import annotations

import argparse
import sys

from orlop.cli import transfers
from orlop.cli.progress import showing
from orlop.client import Connection, details, images
from orlop.client.push import push_image

_NONE = ("", "unknown/unknown")  # the platforms of artifacts, and of attestations


def configure(parser: argparse.ArgumentParser) -> None:
    transfers.add_platforms(parser, "all, or the only one that is here")
    transfers.add_registry(parser)
    transfers.add_progress(parser)
    parser.add_argument("image")
    parser.add_argument("target", nargs="?", help="a reference (default: the image's name)")


def run(args: argparse.Namespace, connection: Connection) -> int:
    name = images.local_name(connection, args.image)
    target = images.full_name(args.target) if args.target else images.full_name(args.image)
    platforms = args.platforms
    if not platforms and not args.all_platforms and (only := _only_one(connection, name)):
        print(
            f"orlop: of {name} only {only} is here: it is pushed as an image of one platform "
            "(pull --all-platforms brings the others)",
            file=sys.stderr,
        )
        platforms = [only]
    with transfers.advising(target), showing(args) as show:
        push_image(
            connection,
            name,
            target,
            platform_names=platforms,
            plain_http=args.plain_http,
            hosts_dir=args.hosts_dir,
            answer=transfers.answer(args),
            on_progress=show,
        )
    print(target)
    return 0


def _only_one(connection: Connection, name: str) -> str:
    """The platform of the only image that is here in full, where an index lists others, too."""
    image = images.find(connection, name)
    if image is None:
        return ""
    found = details.platforms_of(connection, image)
    whole = [each.platform for each in found if not each.missing and each.platform not in _NONE]
    return whole[0] if len(whole) == 1 and any(each.missing for each in found) else ""
