"""`orlop ps`: list containers and what their processes do."""

from __future__ import annotations

import argparse
import json
import shlex
from datetime import datetime
from typing import Any

from orlop.cli import container_filters, form, table
from orlop.client import Connection, containers, health, names, ports, states
from orlop.client.states import State
from orlop.errors import InvalidArgument
from orlop.rpc.convert import nanoseconds
from orlop.wire.services import containers_pb2

_COMMAND_WIDTH = 32
_COLUMNS = {
    "CONTAINER ID": "ID",
    "IMAGE": "Image",
    "COMMAND": "Command",
    "CREATED": "RunningFor",
    "STATUS": "Status",
    "PORTS": "Ports",
    "NAMES": "Names",
}


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also those that do not run")
    add("-q", "--quiet", action="store_true", help="ids only")
    add("-n", "--last", type=int, metavar="N", help="the N that were created last, in any state")
    add("-l", "--latest", action="store_const", const=1, dest="last", help="as --last 1")
    add("-f", "--filter", action="append", default=[], metavar="KEY=VALUE",
        help=f"by {', '.join(container_filters.KEYS)}")  # fmt: skip
    add("--no-trunc", action="store_true", help="whole commands")
    form.add_option(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    wanted = container_filters.parse(args.filter)
    tasks = states.all_tasks(connection)
    found = [
        (record, states.of(record, tasks.get(record.id)))
        for record in containers.list_records(connection)
    ]
    everything = args.all or args.last is not None or wanted.about_state
    well = health.statuses(connection) if wanted.about_health or not args.quiet else {}
    shown = [
        (record, state)
        for record, state in found
        if (everything or state.alive) and wanted.match(record, state, well.get(record.id, ""))
    ]
    shown.sort(key=lambda pair: nanoseconds(pair[0].created_at), reverse=True)
    shown = shown[: args.last]
    if args.quiet:
        for record, _ in shown:
            print(record.id)
        return 0
    rows = [
        _row(connection, record, state, well.get(record.id, ""), whole=args.no_trunc)
        for record, state in shown
    ]
    form.show(rows, _COLUMNS, args.format)
    return 0


def _row(
    connection: Connection,
    record: containers_pb2.Container,
    state: State,
    well: str,
    *,
    whole: bool,
) -> dict[str, Any]:
    created = nanoseconds(record.created_at) / 1e9
    return {
        "ID": record.id,
        "Image": record.image,
        "Command": _command(record, whole=whole),
        "CreatedAt": datetime.fromtimestamp(created).astimezone().isoformat(timespec="seconds"),
        "RunningFor": table.ago(created),
        "State": state.status,
        "Status": status(state, well),
        "Ports": _ports(connection, record, state),
        "Names": names.of(record),
        "Labels": dict(record.labels),
        "Runtime": record.runtime.name,
        "ExitCode": state.exit_code,
        "Pid": state.pid,
    }


def _command(record: containers_pb2.Container, *, whole: bool) -> str:
    try:
        text = shlex.join(containers.spec_of(record)["process"]["args"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return "?"
    return text if whole or len(text) <= _COMMAND_WIDTH else text[: _COMMAND_WIDTH - 1] + "…"


def _ports(connection: Connection, record: containers_pb2.Container, state: State) -> str:
    try:
        found = ports.published(connection, record) if state.alive else ports.of(record)
        return ", ".join(ports.ranges(each for each in found if each.outside))
    except InvalidArgument:
        return "?"


def status(state: State, well: str = "") -> str:
    """A state for people: `Up 3 minutes (Paused)`, `Exited (137) 2 hours ago (OOM killed)`.

    `well` is what healthchecks say, "" without any: `Up 3 minutes (healthy)`.
    """
    if state.status == "exited":
        text = f"Exited ({state.exit_code}) {table.ago(state.finished)}"
        return f"{text} (OOM killed)" if state.oom_killed else text
    if not state.alive:
        return state.status.capitalize()
    text = f"Up {table.passed(state.started)}"
    if state.status == "paused":
        return f"{text} (Paused)"
    if not well:
        return text
    return f"{text} (health: starting)" if well == "starting" else f"{text} ({well})"
