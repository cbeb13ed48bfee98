"""`orlop start`: run stopped containers once more, in the background or attached."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from orlop.cli import detaching
from orlop.cli.attaching import farewell, joined
from orlop.cli.checkpoints import add_folder_option
from orlop.cli.each import for_each
from orlop.cli.session import Left
from orlop.client import Connection, containers
from orlop.client.starting import create_task, start, undone
from orlop.errors import InvalidArgument
from orlop.wire.services import containers_pb2

if TYPE_CHECKING:
    from orlop.client.checkpoints import Origin


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--attach", action="store_true", help="show its output, and exit as it does")
    add("-i", "--interactive", action="store_true", help="connect our standard input")
    detaching.add_signals_option(parser)
    detaching.add_option(parser)
    add("--checkpoint", default="", metavar="NAME", help="go on where this checkpoint was made")
    add_folder_option(parser)
    add("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    if args.attach or args.interactive:
        if len(args.containers) > 1:
            raise InvalidArgument("only one container at a time can be started attached")
        return _attached(args, connection)

    def begin(name: str) -> None:
        record = containers.get(connection, name)
        start(connection, record, _origin(args, connection, record))

    return for_each(args.containers, begin)


def _origin(
    args: argparse.Namespace, connection: Connection, record: containers_pb2.Container
) -> Origin | None:
    if not args.checkpoint:
        return None
    from orlop.client import checkpoints

    return checkpoints.origin(connection, record, args.checkpoint, args.checkpoint_dir)


def _attached(args: argparse.Namespace, connection: Connection) -> int:
    record = containers.get(connection, args.containers[0])
    create_task(connection, record, _origin(args, connection, record))
    with ExitStack() as stack:
        with undone(connection, record):
            session = stack.enter_context(joined(args, connection, record))
            session.start()
        try:
            return session.run()
        except Left as left:
            return farewell(left)
