"""What containers use: their tasks' metrics, of either cgroup version, and their network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orlop import figures
from orlop.client import states
from orlop.client.connection import Connection
from orlop.rpc.convert import any_type, nanoseconds
from orlop.wire.services import tasks_pb2


class Usage(NamedTuple):
    """What a container used until `at` (both times in nanoseconds) and holds now (bytes).

    A limit of 0 is none. `received` and `sent` are of its own network: in the host's, they are 0.
    """

    id: str
    at: int
    cpu: int
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int
    read: int
    written: int
    received: int
    sent: int


def usage(connection: Connection, ids: Sequence[str] = ()) -> Iterator[Usage]:
    """Of these containers, or of all that run; those that cannot tell are left out."""
    tasks = states.all_tasks(connection)
    host = figures.network_of("self")
    request = tasks_pb2.MetricsRequest(filters=[f"id=={each}" for each in ids])
    for metric in connection.tasks.metrics(request).metrics:
        found = figures.of_type(any_type(metric.data), metric.data.value)
        if found is None:
            continue
        task = tasks.get(metric.id)
        traffic = figures.of_network(task.pid, host) if task else figures.NO_TRAFFIC
        yield Usage(metric.id, nanoseconds(metric.timestamp), *found, *traffic)


def share(before: Usage, now: Usage) -> float:
    """Of one CPU, how much was used between two moments; 1.0 is all of it."""
    passed = now.at - before.at
    return max(0.0, (now.cpu - before.cpu) / passed) if passed > 0 else 0.0


class Rates(NamedTuple):
    """Bytes a second between two moments."""

    received: float
    sent: float
    read: float
    written: float


def rates(before: Usage, now: Usage) -> Rates:
    """A counter that began anew, with its container, has no rate."""
    passed = (now.at - before.at) / 1e9
    if passed <= 0:
        return Rates(0, 0, 0, 0)
    return Rates(
        *(max(0.0, (getattr(now, name) - getattr(before, name)) / passed) for name in Rates._fields)
    )
