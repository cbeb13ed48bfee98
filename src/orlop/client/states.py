"""What containers are doing, in Docker's words."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from orlop.client.connection import Connection
from orlop.errors import NotFound
from orlop.rpc.convert import nanoseconds
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import CREATED, PAUSED, PAUSING, RUNNING, STOPPED, Process

OOM_LABEL = "orlop/oom-killed"
"""The daemon's note of the pid whose container ran out of memory."""

_WORDS = {CREATED: "created", RUNNING: "running", PAUSED: "paused", PAUSING: "paused"}


class State(NamedTuple):
    """`status` is created, running, paused or exited; `exit_code` counts once it has exited.

    Times are seconds since the epoch, 0 for none.
    """

    status: str
    pid: int = 0
    exit_code: int = 0
    started: float = 0.0
    finished: float = 0.0
    oom_killed: bool = False

    @property
    def alive(self) -> bool:
        return self.status in ("running", "paused")


def all_tasks(connection: Connection) -> dict[str, Process]:
    """The tasks of the namespace by container."""
    return {each.id: each for each in connection.tasks.list(tasks_pb2.ListTasksRequest()).tasks}


def task_of(connection: Connection, container: str) -> Process | None:
    try:
        found: Process = connection.tasks.get(tasks_pb2.GetRequest(container_id=container)).process
    except NotFound:
        return None
    return found


def of(container: containers_pb2.Container, task: Process | None) -> State:
    """The state of a container with this task; without one it never ran, or it was lost."""
    if task is None:
        return State("created")
    killed = container.labels.get(OOM_LABEL) == str(task.pid)
    if task.status == STOPPED:
        finished = nanoseconds(task.exited_at) / 1e9
        return State("exited", 0, task.exit_status, 0.0, finished, killed)
    status = _WORDS.get(task.status, "unknown")
    return State(status, task.pid, 0, started_at(task.pid), 0.0, killed)


def started_at(pid: int) -> float:
    """When a process of this host began; 0 if it is gone (proc(5), stat and uptime)."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - pathlib is no help here
            ticks = int(file.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
