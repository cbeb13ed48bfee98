"""`orlop top`: what all containers use, or the processes of one, as the host's ps sees them."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Collection, Iterator, Sequence

from orlop.client import Connection, containers
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.wire.services import tasks_pb2

_DEFAULT = ["-o", "user,pid,ppid,pcpu,stime,tty,time,args"]
_PID = "PID"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", nargs="?",
        help="show its processes; without, what all containers use, each second anew")  # fmt: skip
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="for ps")


def run(args: argparse.Namespace, connection: Connection) -> int:
    if args.container is None:
        from orlop.cli import live_table

        return live_table.run(connection)
    container = containers.get(connection, args.container).id
    answer = connection.tasks.list_pids(tasks_pb2.ListPidsRequest(container_id=container))
    pids = {str(each.pid) for each in answer.processes}
    if not pids:
        raise FailedPrecondition(f'container "{container}" has no process')
    lines = _ps(["-p", ",".join(sorted(pids)), *(args.options or _DEFAULT)]).splitlines()
    for line in [*lines[:1], *_of(pids, lines)]:
        print(line)
    return 0


def _ps(options: Sequence[str]) -> str:
    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FailedPrecondition("there is no ps here (Debian: procps)") from None
    if done.stderr:
        raise InvalidArgument(f"ps: {done.stderr.strip().splitlines()[0]}")
    return done.stdout


def _of(pids: Collection[str], lines: Sequence[str]) -> Iterator[str]:
    """The rows of these processes: what ps is told to select, as by `aux`, comes on top of them."""
    titles = lines[0].split() if lines else []
    if _PID not in titles:
        raise InvalidArgument(
            "ps: no column PID tells whose rows these are: ask for it by -o pid,…"
        )
    column = titles.index(_PID)
    wanted = False
    for line in lines[1:]:
        pid = (line.split(None, column + 1)[column:] or [""])[0]
        if pid.isdecimal():
            wanted = pid in pids
        elif pid != "-":  # which is a thread of the process above it
            raise InvalidArgument("ps: column PID is not to be found in all rows: ask for it first")
        if wanted:
            yield line
