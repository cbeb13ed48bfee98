"""`orlop ps`: list containers and what their processes do."""

from __future__ import annotations

import argparse
import json
import shlex

from orlop.cli import table
from orlop.client import Connection, containers
from orlop.rpc.convert import nanoseconds
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import PAUSED, RUNNING, STOPPED, Process, Status

_COMMAND_WIDTH = 32
_RUNNING_STATES = (RUNNING, PAUSED)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")


def run(args: argparse.Namespace, connection: Connection) -> int:
    tasks = {t.id: t for t in connection.tasks.list(tasks_pb2.ListTasksRequest()).tasks}
    shown = [
        record
        for record in containers.list_records(connection)
        if args.all or (record.id in tasks and tasks[record.id].status in _RUNNING_STATES)
    ]
    shown.sort(key=lambda record: nanoseconds(record.created_at), reverse=True)
    if args.quiet:
        for record in shown:
            print(record.id)
        return 0
    table.show(
        ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS"),
        [_row(record, tasks.get(record.id)) for record in shown],
    )
    return 0


def _row(record: containers_pb2.Container, task: Process | None) -> tuple[str, ...]:
    return (
        record.id,
        record.image,
        _command(record),
        table.ago(nanoseconds(record.created_at) / 1e9),
        _status(task),
    )


def _command(record: containers_pb2.Container) -> str:
    try:
        text = shlex.join(containers.spec_of(record)["process"]["args"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return "?"
    return text if len(text) <= _COMMAND_WIDTH else text[: _COMMAND_WIDTH - 1] + "…"


def _status(task: Process | None) -> str:
    if task is None:
        return "No task"
    if task.status == STOPPED:
        ended = table.ago(nanoseconds(task.exited_at) / 1e9)
        return f"Exited ({task.exit_status}) {ended}"
    return str(Status.Name(task.status)).capitalize()
