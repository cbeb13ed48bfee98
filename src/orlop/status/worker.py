"""The worker that reads what containers use; it is forked for a look, and ends with it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from orlop import figures
from orlop.errors import NotFound
from orlop.fork.memory import read_all, write_all
from orlop.metrics.places import cgroup_of
from orlop.shim.files import read_text
from orlop.shim.stats import Collector

_TICKS = os.sysconf("SC_CLK_TCK")


class Target(NamedTuple):
    """A container by its first process; `health` is the file with its health, "" for none."""

    namespace: str
    id: str
    pid: int
    health: str


def look(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> Any:
    """Job of `fork.shares`: writes a list, with an object for each container that can be looked at.

    That has "namespace" and "id", "health", "started", and "use" as in `status.model.Use`.
    """
    source, sink = fds
    looker = _Looker()
    found = [looker.look(Target(*each)) for each in json.loads(read_all(source))]
    write_all(sink, json.dumps(found).encode())
    return None


class _Looker:
    def __init__(self) -> None:
        self._collector = Collector()
        self._host = figures.network_of("self")

    def look(self, target: Target) -> dict[str, Any]:
        found: dict[str, Any] = {"namespace": target.namespace, "id": target.id}
        if target.health:
            found["health"] = _health(target.health)
        if not target.pid:
            return found
        try:
            found["started"] = _started(target.pid)
            statistics = self._collector.collect(cgroup_of(target.pid, target.id))
            traffic = figures.of_network(target.pid, self._host)
        except (OSError, NotFound, ValueError, LookupError):
            return found  # it has ended meanwhile
        found["use"] = use(figures.of_message(statistics), traffic, time.time())
        return found


def use(found: figures.Figures, traffic: figures.Traffic, at: float) -> dict[str, Any]:
    """The fields of a `status.model.Use`."""
    fields = {**found._asdict(), **traffic._asdict(), "at": at}
    return {**fields, "cpu": found.cpu / 1e9}


def _started(pid: int) -> float:
    """proc(5), stat: in ticks since the boot."""
    ticks = int(read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / _TICKS


def _health(path: str) -> str:
    try:
        return str(json.loads(read_text(path))["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return "starting"  # not checked yet
