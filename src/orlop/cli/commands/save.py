"""`orlop save`: write images to an archive."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orlop.cli import transfers
from orlop.cli.progress import showing
from orlop.client import Connection, images
from orlop.client.archive import export_images
from orlop.errors import FailedPrecondition, InvalidArgument


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    transfers.add_platforms(parser, "this machine's")
    transfers.add_progress(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, connection: Connection) -> int:
    names = [images.local_name(connection, name) for name in args.images]
    with _target(args.output) as file, showing(args) as show:
        export_images(
            connection,
            names,
            file,
            platform_names=args.platforms,
            all_platforms=args.all_platforms,
            on_progress=show,
        )
    return 0


@contextmanager
def _target(output: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that is there only when it is whole."""
    if output is None:
        if sys.stdout.isatty():
            raise InvalidArgument("an archive does not go to a terminal; -o FILE, or redirect it")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # a device or a pipe is written to as it is
        with _writing(output), path.open("wb") as file:
            yield file
        return
    with _writing(output):
        fd, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        with _writing(output):
            os.chmod(beside, 0o666 & ~_umask())  # noqa: PTH101
            os.replace(beside, path)  # noqa: PTH105
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


@contextmanager
def _writing(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FailedPrecondition(f'"{output}" cannot be written: {error.strerror}') from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
