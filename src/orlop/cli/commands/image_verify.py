"""`orlop image verify`: is an image, as it is in its registry, signed by one of these keys?"""

from __future__ import annotations

import argparse
from pathlib import Path

from orlop.cli import transfers

NEEDS_DAEMON = False


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        action="append",
        required=True,
        type=Path,
        dest="keys",
        metavar="FILE",
        help="a public key in PEM; may be repeated",
    )
    parser.add_argument(
        "--match-repository",
        action="store_true",
        help="the signature must name this very repository",
    )
    transfers.add_registry(parser)
    parser.add_argument("image")


def run(args: argparse.Namespace) -> int:
    from orlop.client import images
    from orlop.client.remote import verify_signature

    name = images.full_name(args.image)
    target, key = verify_signature(
        name,
        args.keys,
        answer=transfers.answer(args),
        plain_http=args.plain_http,
        hosts_dir=args.hosts_dir,
        match_repository=args.match_repository,
    )
    print(f"{name}@{target.digest} is signed by {key}")
    return 0
