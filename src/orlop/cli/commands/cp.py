"""`orlop cp`: copy files between a container and this host."""

from __future__ import annotations

import argparse

from orlop.client import Connection, containers
from orlop.client.copying import Place, copy, copy_in, copy_out
from orlop.errors import InvalidArgument

_STDIO = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "orlop cp [-a] [-L] CONTAINER:PATH PATH|-  |  PATH|- CONTAINER:PATH"
    parser.description = (
        "Copy files between a container, running or not, and this host; - is a tar. "
        "A PATH with a colon is written with a slash before it, as in ./a:b."
    )
    parser.add_argument("-a", "--archive", action="store_true",
        help="keep owners; else files become the user's here, root's in a container")  # fmt: skip
    parser.add_argument("-L", "--follow-link", action="store_true",
        help="copy what the source is a link to, not the link")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("source")
    parser.add_argument("target")


def run(args: argparse.Namespace, connection: Connection) -> int:
    source, target = _place(connection, args.source), _place(connection, args.target)
    if source.container is None and target.container is None:
        raise InvalidArgument("one of source and target must be CONTAINER:PATH")
    if args.target == _STDIO:
        copy_out(connection, source, 1, follow=args.follow_link)
    elif args.source == _STDIO:
        copy_in(connection, 0, target)
    else:
        copy(connection, source, target, archive=args.archive, follow=args.follow_link)
    return 0


def _place(connection: Connection, text: str) -> Place:
    """A colon is part of a container's place only before the first slash."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name == ".":
        return Place(text)
    if not path:
        raise InvalidArgument(f'"{text}" names no path in the container')
    return Place(path, containers.get(connection, name))
