"""`orlop unpause`: let paused containers go on."""

from __future__ import annotations

import argparse

from orlop.cli.each import for_each
from orlop.client import Connection, containers
from orlop.wire.services import tasks_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, connection: Connection) -> int:
    def unpause(name: str) -> None:
        container = containers.get(connection, name).id
        connection.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=container))

    return for_each(args.containers, unpause)
