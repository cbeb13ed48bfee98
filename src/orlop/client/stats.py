"""What containers use: their tasks' metrics, of either cgroup version, in one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orlop.client.connection import Connection
from orlop.rpc.convert import any_type, nanoseconds
from orlop.wire import cgroups_v1_pb2, cgroups_v2_pb2
from orlop.wire.services import tasks_pb2
from orlop.wire.types_pb2 import Metric

_UNLIMITED = 1 << 60
"""What is more is the kernel's way to say that there is no limit."""


class Usage(NamedTuple):
    """What a container used until `at` (both times in nanoseconds) and holds now (bytes).

    A limit of 0 is none.
    """

    id: str
    at: int
    cpu: int
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int


def usage(connection: Connection, ids: Sequence[str] = ()) -> Iterator[Usage]:
    """Of these containers, or of all that run; those that cannot tell are left out."""
    request = tasks_pb2.MetricsRequest(filters=[f"id=={each}" for each in ids])
    for metric in connection.tasks.metrics(request).metrics:
        found = _parse(metric)
        if found is not None:
            yield found


def _parse(metric: Metric) -> Usage | None:
    at = nanoseconds(metric.timestamp)
    match any_type(metric.data):
        case "io.containerd.cgroups.v1.Metrics":
            one = cgroups_v1_pb2.Metrics.FromString(metric.data.value)
            memory = one.memory.usage
            # As free(1) does: what can be dropped at once is not in use.
            used = memory.usage - min(one.memory.total_inactive_file, memory.usage)
            cpu, limit = one.cpu.usage.total, memory.limit
            pids, most = one.pids.current, one.pids.limit
        case "io.containerd.cgroups.v2.Metrics":
            two = cgroups_v2_pb2.Metrics.FromString(metric.data.value)
            used = two.memory.usage - min(two.memory.inactive_file, two.memory.usage)
            cpu, limit = two.cpu.usage_usec * 1000, two.memory.usage_limit
            pids, most = two.pids.current, two.pids.limit
        case _:
            return None
    return Usage(metric.id, at, cpu, used, _limit(limit), pids, _limit(most))


def _limit(value: int) -> int:
    return 0 if value >= _UNLIMITED else value


def share(before: Usage, now: Usage) -> float:
    """Of one CPU, how much was used between two moments; 1.0 is all of it."""
    passed = now.at - before.at
    return max(0.0, (now.cpu - before.cpu) / passed) if passed > 0 else 0.0
