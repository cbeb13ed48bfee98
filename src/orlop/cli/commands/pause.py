"""`orlop pause`: freeze all processes of containers."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, containers
from orlop.wire.services import tasks_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    def pause(name: str) -> None:
        container = containers.get(connection, name).id
        connection.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=container))

    return for_each(args.containers, pause)
