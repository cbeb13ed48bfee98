"""`orlop stats`: what running containers use, again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time

from orlop.cli import table
from orlop.client import Connection, containers
from orlop.client.stats import Usage, share, usage
from orlop.errors import NotFound

_PAUSE = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-stream", action="store_true", help="once")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("containers", nargs="*", metavar="CONTAINER", help="default: all")


def run(args: argparse.Namespace, connection: Connection) -> int:
    ids = [containers.get(connection, name).id for name in args.containers]
    before = _read(connection, ids)
    if missing := set(ids) - set(before):
        raise NotFound(f'running task of container "{min(missing)}"')
    while True:
        time.sleep(_PAUSE)
        now = _read(connection, ids)
        _show(args, [(before.get(name, found), found) for name, found in sorted(now.items())])
        if args.no_stream:
            return 0
        before = now


def _read(connection: Connection, ids: list[str]) -> dict[str, Usage]:
    return {each.id: each for each in usage(connection, ids)}


def _show(args: argparse.Namespace, found: list[tuple[Usage, Usage]]) -> None:
    if args.format == "json":
        for before, now in found:
            print(json.dumps(_facts(before, now)), flush=True)
        return
    if not args.no_stream and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    table.show(
        ("CONTAINER ID", "CPU", "MEMORY", "LIMIT", "PIDS"),
        [
            (
                now.id,
                f"{share(before, now):.2%}",
                table.size(now.memory),
                table.size(now.memory_limit) if now.memory_limit else "-",
                str(now.pids),
            )
            for before, now in found
        ],
    )
    sys.stdout.flush()


def _facts(before: Usage, now: Usage) -> dict[str, object]:
    return {
        "id": now.id,
        "cpu": round(share(before, now), 4),
        "memory": now.memory,
        "memory_limit": now.memory_limit,
        "pids": now.pids,
        "pids_limit": now.pids_limit,
    }
