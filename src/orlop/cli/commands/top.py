"""`orlop top`: the processes of a container, as the host's ps sees them."""

from __future__ import annotations

import argparse
import subprocess

from orlop.client import Connection, containers
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.wire.services import tasks_pb2

_DEFAULT = ["-o", "user,pid,ppid,pcpu,stime,tty,time,args"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="for ps")


def run(args: argparse.Namespace, connection: Connection) -> int:
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
