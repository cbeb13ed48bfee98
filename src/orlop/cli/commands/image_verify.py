"""`orlop image verify`: is an image, as it is in its registry, signed by one of these?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from orlop.cli import transfers
from orlop.errors import InvalidArgument

if TYPE_CHECKING:
    from orlop.trust.signers import Signers

NEEDS_DAEMON = False


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        type=Path,
        dest="keys",
        metavar="FILE",
        help="a public key in PEM; may be repeated",
    )
    parser.add_argument(
        "--identity",
        default="",
        metavar="PATTERN",
        help="whom the certificate of a keyless signature must name",
    )
    parser.add_argument(
        "--issuer", default="", metavar="URL", help="the provider that vouches for the identity"
    )
    parser.add_argument(
        "--trusted-root",
        type=Path,
        metavar="FILE",
        help="sigstore's authorities and logs (trusted_root.json), for --identity",
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
    target, signer = verify_signature(
        name,
        _signers(args),
        answer=transfers.answer(args),
        plain_http=args.plain_http,
        folders=transfers.hosts_folders(args),
        match_repository=args.match_repository,
    )
    print(f"{name}@{target.digest} is signed by {signer}")
    return 0


def _signers(args: argparse.Namespace) -> Signers:
    from orlop.trust.signers import Identity, Signers

    given = [bool(each) for each in (args.identity, args.issuer, args.trusted_root)]
    if any(given) != all(given):
        raise InvalidArgument("--identity, --issuer and --trusted-root need each other")
    if not args.keys and not any(given):
        raise InvalidArgument("whose signature? Give --key, or --identity with its --issuer")
    identities = (Identity(args.identity, args.issuer),) if args.identity else ()
    return Signers(tuple(args.keys), identities, args.trusted_root)
