"""`orlop store check`: is everything there that should be, and as it should be?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from orlop.cli import table, transfers
from orlop.cli.counting import Counting
from orlop.client import Connection
from orlop.errors import InvalidArgument
from orlop.wire.services import store_pb2

_COLUMNS = ("WHAT", "NAME", "PROBLEM", "USED BY", "OUTCOME")
_OUTCOMES = ("", "repaired", "dropped", "left")


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="compare names and sizes only, do not read the blobs")
    add("--repair", action="store_true",
        help="fetch damaged blobs again, remove what belongs to nothing")  # fmt: skip
    add("--drop", action="store_true",
        help="with --repair: give up what cannot be had again, keep its file aside")  # fmt: skip
    add("--format", choices=("table", "json"), default="table", help="(%(default)s)")
    add("-q", "--quiet", action="store_true", help="no progress")
    transfers.add_registry(parser)


def run(args: argparse.Namespace, connection: Connection) -> int:
    if args.drop and not args.repair:
        raise InvalidArgument("--drop is for --repair")
    found: list[store_pb2.Finding] = []
    summary = store_pb2.CheckSummary()
    progress = Counting("reading blobs", quiet=args.quiet)
    for answer in _answers(args, connection):
        match answer.WhichOneof("part"):
            case "finding":
                progress.clear()
                found.append(answer.finding)
                if args.format == "json":
                    print(json.dumps(_row(answer.finding)), flush=True)
            case "progress":
                progress.show(answer.progress.done, answer.progress.total)
            case "summary":
                summary = answer.summary
    progress.clear()
    if args.format == "table":
        _show(found)
    _conclude(found, summary, read=not args.quick)
    return 1 if summary.damage_left else 0


def _answers(args: argparse.Namespace, connection: Connection) -> Iterator[Any]:
    from orlop.client.auth import AuthStream

    request = store_pb2.CheckRequest(quick=args.quick, repair=args.repair, drop=args.drop)
    request.registry.default_scheme = "http" if args.plain_http else ""
    request.registry.host_dir = args.hosts_dir
    with ExitStack() as stack:
        if args.repair:
            asked = stack.enter_context(AuthStream(connection, transfers.answer(args)))
            request.registry.auth_stream = asked.id
        yield from connection.store.check(request)


def _row(finding: store_pb2.Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "damage": finding.damage,
        "namespace": finding.namespace,
        "name": finding.name,
        "path": finding.path,
        "problem": finding.problem,
        "used_by": list(finding.used_by),
        "advice": finding.advice,
        "outcome": _OUTCOMES[finding.outcome] or "found",
    }


def _show(found: list[store_pb2.Finding]) -> None:
    if not found:
        return
    lines = [
        (each.kind, each.name, each.problem, ",".join(each.used_by), _OUTCOMES[each.outcome])
        for each in found
    ]
    table.show(_COLUMNS, lines)


def _conclude(
    found: list[store_pb2.Finding], summary: store_pb2.CheckSummary, *, read: bool
) -> None:
    """What was looked at, where damaged files are, and what to do, on standard error."""
    left = [each for each in found if each.outcome in (0, len(_OUTCOMES) - 1)]
    for each in left:
        where = f" ({each.path})" if each.path and each.damage else ""
        print(f"{each.kind} {each.name}{where}: {each.advice}", file=sys.stderr)
    how = "read" if read else "compared"
    state = f"{summary.damage_left} damaged" if summary.damage_left else "no damage"
    print(
        f"{summary.blobs} blobs ({table.size(summary.bytes)}) {how}, "
        f"{summary.snapshots} snapshots: {state}{' left' if found else ''}",
        file=sys.stderr,
    )
