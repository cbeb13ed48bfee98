"""The metrics of containers, gathered for one scrape."""

from __future__ import annotations

import base64
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orlop.containers import ContainerStore
from orlop.containers.model import Facts
from orlop.errors import OrlopError
from orlop.fork.shares import look
from orlop.fork.worker import Spawner
from orlop.metrics.filesystems import Filesystems, Layer, Measured
from orlop.metrics.labels import Labels
from orlop.metrics.target import FILESYSTEM, Target
from orlop.oci.healthcheck import LABEL as HEALTHCHECK
from orlop.restart.rules import COUNT, restarts
from orlop.rpc.convert import any_type
from orlop.runtime import TaskManager
from orlop.runtime.shims import OWN_RUNTIMES
from orlop.runtime.task import QUERY_TIMEOUT, Task
from orlop.wire.task_types_pb2 import Status

_JOB = "orlop.metrics.worker:collect"

GONE, SILENT, LOST, UNKNOWN, UNMEASURED = "gone", "silent", "lost", "unknown", "unmeasured"

_log = logging.getLogger(__name__)


class Options(NamedTuple):
    """`most` containers are looked at; `health` is the folder of their states."""

    labels: Labels
    most: int
    health: Path


class Found(NamedTuple):
    """Samples by metric, as text in pieces; and what is not among them.

    `failures` counts containers by reason, `dropped` samples, `omitted` containers beyond the cap.
    """

    parts: dict[str, list[bytes]]
    containers: int
    failures: Counter[str]
    dropped: int
    omitted: int


class Containers:
    """Looks at the containers that have tasks; their shims are not woken, but for strange ones."""

    def __init__(
        self,
        forks: Spawner,
        tasks: TaskManager,
        records: ContainerStore,
        filesystems: Filesystems,
        options: Options,
    ) -> None:
        self._forks = forks
        self._tasks = tasks
        self._records = records
        self._filesystems = filesystems
        self._options = options

    def collect(self) -> Found:
        tasks = sorted(self._tasks.everything(), key=lambda task: (task.namespace, task.id))
        omitted = max(0, len(tasks) - self._options.most)
        failures: Counter[str] = Counter()
        targets = self._targets(tasks[: self._options.most], failures)
        parts: dict[str, list[bytes]] = {}
        dropped = 0
        for share, answer, data in look(self._forks, _JOB, "orlop-metrics", targets):
            if isinstance(answer, OrlopError):
                failures[LOST] += share
                continue
            failures.update(answer["failures"])
            dropped += answer["dropped"]
            for name, start, length in answer["parts"]:
                parts.setdefault(name, []).append(data[start : start + length])
        self._filesystems.refresh()
        return Found(parts, len(targets), failures, dropped, omitted)

    def _targets(self, tasks: Sequence[Task], failures: Counter[str]) -> list[Target]:
        wanted = (*self._options.labels.keys, COUNT, HEALTHCHECK)
        try:
            records = self._records.facts(wanted)
        except (OrlopError, sqlite3.Error) as error:  # the daemon's own are wanted all the more
            _log.warning("metrics lack all containers: %s", error)
            failures[UNKNOWN] += len(tasks)
            return []
        found = {
            task: record
            for task in tasks
            if (record := records.get((task.namespace, task.id))) is not None
        }
        failures[GONE] += len(tasks) - len(found)
        measured = self._filesystems.known(map(_layer, found, found.values()))
        failures[UNMEASURED] += self._filesystems.failed()
        asked = []
        targets = []
        for task, record in found.items():
            target = self._target(task, record, measured.get(_layer(task, record)))
            if target.pid and not (task.shim.own or record.runtime in OWN_RUNTIMES):
                asked.append((task, target))
            else:
                targets.append(target)
        targets += _ask(asked, failures)
        return targets

    def _target(self, task: Task, record: Facts, measured: Measured | None) -> Target:
        labels = self._options.labels.of(
            task.id, task.namespace, record.runtime, record.image, record.labels
        )
        ended = task.exit is not None
        facts = [("orlop_container_state", f'state="{_state(task)}"', 1.0)]
        facts.append(("orlop_container_restarts_total", "", restarts(record.labels)))
        if measured is not None:
            told = measured if measured.limit else measured[:-1]
            written = zip(FILESYSTEM, told, strict=False)
            facts += [(family.name, "", value) for family, value in written]
        health = ""
        if HEALTHCHECK in record.labels:
            health = str(self._options.health / task.namespace / f"{task.id}.json")
        return Target(task.id, labels, 0 if ended else task.pid, facts, health)


def _layer(task: Task, record: Facts) -> Layer:
    return Layer(task.namespace, record.snapshotter, record.snapshot_key)


def _state(task: Task) -> str:
    if task.exit is not None:
        return "stopped"
    known = task.known
    return Status.Name(known.status).lower() if known is not None else "unknown"


def _ask(asked: Sequence[tuple[Task, Target]], failures: Counter[str]) -> Iterator[Target]:
    """The shims of others know where their containers are: in a virtual machine, say."""
    calls = []
    for task, target in asked:
        try:
            calls.append((task, target, task.begin_stats()))
        except OrlopError:
            failures[SILENT] += 1
            yield target._replace(pid=0)
    deadline = time.monotonic() + QUERY_TIMEOUT
    for task, target, call in calls:
        told = target._replace(pid=0)
        try:
            data = task.read_stats(call, max(0.0, deadline - time.monotonic())).data
            message = base64.b64encode(data.value).decode()
            told = told._replace(statistics=any_type(data), message=message)
        except OrlopError:
            failures[SILENT] += 1
        yield told
