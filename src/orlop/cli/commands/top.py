"""`orlop top`: what all containers use, or the processes of one, as the host's ps sees them."""

from __future__ import annotations

import argparse
import subprocess

from orlop.client import Connection, containers
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.wire.services import tasks_pb2

_DEFAULT = ["-o", "user,pid,ppid,pcpu,stime,tty,time,args"]


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
    pids = ",".join(str(each.pid) for each in answer.processes)
    if not pids:
        raise FailedPrecondition(f'container "{container}" has no process')
    try:
        done = subprocess.run(
            ["ps", "-p", pids, *(args.options or _DEFAULT)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise FailedPrecondition("there is no ps here (Debian: procps)") from None
    if done.stderr:
        raise InvalidArgument(f"ps: {done.stderr.strip().splitlines()[0]}")
    print(done.stdout, end="")
    return 0
