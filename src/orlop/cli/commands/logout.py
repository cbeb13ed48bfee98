"""`orlop logout`: forget the credentials for a registry."""

from __future__ import annotations

import argparse
import sys

from orlop.credentials import Keyring

NEEDS_DAEMON = False


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", nargs="?", default="docker.io", help="(%(default)s)")


def run(args: argparse.Namespace) -> int:
    keyring = Keyring.of_user()
    if keyring.erase(args.registry):
        print(f"credentials for {args.registry} are gone")
    else:
        print(f"orlop: {keyring.path} has none for {args.registry}", file=sys.stderr)
    return 0
