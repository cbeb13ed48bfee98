"""`orlop load`: take images from an archive."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orlop.cli import transfers
from orlop.cli.progress import showing
from orlop.client import Connection, images
from orlop.client.archive import import_images
from orlop.errors import FailedPrecondition, InvalidArgument


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--input", metavar="FILE", help="default: standard input")
    transfers.add_platforms(parser, "all that are in it")
    add("--index-name", default="", metavar="NAME", help="a name for all its images together")
    add("--no-unpack", action="store_true", help="store only")
    add("--snapshotter", default="", help="where to unpack (default: the daemon's)")
    transfers.add_progress(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    with _source(args.input) as file, showing(args) as show:
        names = import_images(
            connection,
            file,
            index_name=images.full_name(args.index_name) if args.index_name else "",
            platform_names=args.platforms,
            unpack=not args.no_unpack,
            snapshotter=args.snapshotter,
            on_progress=show,
        )
    for name in names:
        print(name)
    return 0


@contextmanager
def _source(path: str | None) -> Iterator[IO[bytes]]:
    if path is None:
        if sys.stdin.isatty():
            raise InvalidArgument("no archive comes from a terminal; -i FILE, or redirect it")
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - an error of it is told apart from others
    except OSError as error:
        raise FailedPrecondition(f'"{path}" cannot be read: {error.strerror}') from None
    with file:
        yield file
