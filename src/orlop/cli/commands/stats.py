"""`orlop stats`: what running containers use, again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping

from orlop.cli import form, table
from orlop.client import Connection, containers, names
from orlop.client.stats import Usage, share, usage
from orlop.errors import NotFound

_PAUSE = 1.0
_COLUMNS = {
    "CONTAINER ID": "ID",
    "NAME": "Name",
    "CPU": "CPUPerc",
    "MEMORY": "MemUsage",
    "LIMIT": "MemLimit",
    "NET I/O": "NetIO",
    "BLOCK I/O": "BlockIO",
    "PIDS": "PIDs",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-stream", action="store_true", help="once")
    form.add_option(parser)
    parser.add_argument("containers", nargs="*", metavar="CONTAINER", help="default: all")


def run(args: argparse.Namespace, connection: Connection) -> int:
    records = containers.list_records(connection)
    called = {record.id: names.of(record) for record in records}
    ids = [containers.get(connection, name).id for name in args.containers]
    before = _read(connection, ids)
    if missing := set(ids) - set(before):
        raise NotFound(f'running task of container "{min(missing)}"')
    while True:
        time.sleep(_PAUSE)
        now = _read(connection, ids)
        pairs = [(before.get(name, found), found) for name, found in sorted(now.items())]
        _show(args, pairs, called)
        if args.no_stream:
            return 0
        before = now


def _read(connection: Connection, ids: list[str]) -> dict[str, Usage]:
    return {each.id: each for each in usage(connection, ids)}


def _show(
    args: argparse.Namespace, found: list[tuple[Usage, Usage]], called: Mapping[str, str]
) -> None:
    if args.format == "json":
        for before, now in found:
            print(json.dumps(_facts(before, now)), flush=True)
        return
    if not args.no_stream and sys.stdout.isatty() and args.format.startswith("table"):
        print("\x1b[H\x1b[2J", end="")
    rows = [_row(before, now, called.get(now.id, now.id)) for before, now in found]
    form.show(rows, _COLUMNS, args.format)
    sys.stdout.flush()


def _row(before: Usage, now: Usage, name: str) -> dict[str, str]:
    limit = now.memory_limit
    return {
        "ID": now.id,
        "Name": name,
        "CPUPerc": f"{share(before, now):.2%}",
        "MemUsage": table.size(now.memory),
        "MemLimit": table.size(limit) if limit else "-",
        "MemPerc": f"{now.memory / limit:.2%}" if limit else "-",
        "NetIO": f"{table.size(now.received)} / {table.size(now.sent)}",
        "BlockIO": f"{table.size(now.read)} / {table.size(now.written)}",
        "PIDs": str(now.pids),
    }


def _facts(before: Usage, now: Usage) -> dict[str, object]:
    return {
        "id": now.id,
        "cpu": round(share(before, now), 4),
        "memory": now.memory,
        "memory_limit": now.memory_limit,
        "received": now.received,
        "sent": now.sent,
        "read": now.read,
        "written": now.written,
        "pids": now.pids,
        "pids_limit": now.pids_limit,
    }
