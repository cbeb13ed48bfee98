"""What containers there are, what they do and what they use."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orlop import figures, typed
from orlop.containers import ContainerStore
from orlop.containers.model import Facts
from orlop.errors import OrlopError
from orlop.fork.shares import look
from orlop.fork.worker import Spawner
from orlop.oci.healthcheck import LABEL as HEALTHCHECK
from orlop.restart.rules import COUNT, restarts
from orlop.rpc.convert import any_type
from orlop.runtime import TaskManager
from orlop.runtime.shims import OWN_RUNTIMES
from orlop.runtime.task import QUERY_TIMEOUT, Task
from orlop.status.model import Container, Use
from orlop.status.worker import Target, use
from orlop.wire.task_types_pb2 import CREATED, PAUSED, PAUSING, RUNNING, STOPPED

_log = logging.getLogger(__name__)

_JOB = "orlop.status.worker:look"
_NAME = "orlop/name"  # what `orlop rename` has set
_WORDS = {
    CREATED: "created",
    RUNNING: "running",
    PAUSED: "paused",
    PAUSING: "paused",
    STOPPED: "exited",
}

Key = tuple[str, str]
"""A namespace and a container."""


class _Look(msgspec.Struct):
    """What a worker says of a container."""

    namespace: str
    id: str
    health: str = ""
    started: float = 0.0
    use: Use | None = None


class Containers:
    """Looks at all containers; workers read their cgroups, and no shim of our own wakes.

    `health` is the folder of their states.
    """

    def __init__(
        self, forks: Spawner, tasks: TaskManager, records: ContainerStore, health: Path
    ) -> None:
        self._forks = forks
        self._tasks = tasks
        self._records = records
        self._health = health

    def all(self) -> tuple[list[Container], int]:
        """By namespace and id, and how many could not be looked at; those have no `use`."""
        records = self._records.facts((_NAME, COUNT, HEALTHCHECK))
        tasks = {(task.namespace, task.id): task for task in self._tasks.everything()}
        states = self._states(tasks)
        looks, lost = self._looks(records, tasks)
        found = [
            _container(key, record, tasks.get(key), states, looks.get(key))
            for key, record in sorted(records.items())
        ]
        return found, lost

    def _states(self, tasks: Mapping[Key, Task]) -> dict[Key, str]:
        """In Docker's words. Shims are asked where it is not known from before."""
        known = {key: task.known for key, task in tasks.items()}
        asking = {namespace for (namespace, _), state in known.items() if state is None}
        found = {key: state for key, state in known.items() if state is not None}
        for namespace in asking:
            found.update(((namespace, each.id), each) for each in self._tasks.states(namespace))
        return {key: _WORDS.get(state.status, "unknown") for key, state in found.items()}

    def _looks(
        self, records: Mapping[Key, Facts], tasks: Mapping[Key, Task]
    ) -> tuple[dict[Key, _Look], int]:
        targets, asked = [], []
        for key, record in records.items():
            task = tasks.get(key)
            if task is None or task.exit is not None:
                continue
            ours = task.shim.own or record.runtime in OWN_RUNTIMES
            health = ""
            if HEALTHCHECK in record.labels:
                health = str(self._health / task.namespace / f"{task.id}.json")
            targets.append(Target(*key, task.pid if ours else 0, health))
            if not ours:
                asked.append(task)
        found, lost = {}, 0
        for share in look(self._forks, _JOB, "orlop-status", targets):
            if isinstance(share.answer, OrlopError):
                lost += share.share
                _log.warning("cannot look at %d containers: %s", share.share, share.answer)
                continue
            for each in typed.decode(share.data, list[_Look]):
                found[each.namespace, each.id] = each
        told = list(_ask(asked))
        for task, used in told:
            found.setdefault((task.namespace, task.id), _Look(task.namespace, task.id)).use = used
        return found, lost


def _container(
    key: Key, record: Facts, task: Task | None, states: Mapping[Key, str], found: _Look | None
) -> Container:
    namespace, name = key
    ended = task.exit if task is not None else None
    state = "created" if task is None else "exited" if ended else states.get(key, "unknown")
    return Container(
        namespace=namespace,
        id=name,
        name=record.labels.get(_NAME) or name,
        image=record.image,
        state=state,
        exit=ended.status if ended else 0,
        restarts=restarts(record.labels),
        health=found.health if found else "",
        started=found.started if found else 0.0,
        use=found.use if found else None,
    )


def _ask(tasks: Sequence[Task]) -> Iterator[tuple[Task, Use]]:
    """The shims of others know where their containers are: in a virtual machine, say."""
    calls = []
    for task in tasks:
        try:
            calls.append((task, task.begin_stats()))
        except OrlopError:
            continue
    deadline = time.monotonic() + QUERY_TIMEOUT
    for task, call in calls:
        try:
            data: Any = task.read_stats(call, max(0.0, deadline - time.monotonic())).data
        except OrlopError:
            continue
        told = figures.of_type(any_type(data), data.value)
        if told is not None:
            yield task, Use(**use(told, figures.NO_TRAFFIC, time.time()))
