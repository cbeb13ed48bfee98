"""The worker that reads containers' cgroups and processes, and writes the samples down.

It is forked for a scrape and ends with it: between scrapes nothing is done and nothing is held.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from orlop.errors import NotFound
from orlop.fork.memory import read_all, write_all
from orlop.metrics import cgroups
from orlop.metrics.family import Family, Sheet
from orlop.metrics.places import cgroup_of
from orlop.metrics.processes import FAMILIES as PROCESSES
from orlop.metrics.processes import Processes
from orlop.metrics.target import FACTS, Target
from orlop.shim.files import read_text
from orlop.shim.stats import Collector
from orlop.wire import cgroups_v1_pb2, cgroups_v2_pb2

FAMILIES: tuple[Family, ...] = (*FACTS, *cgroups.families(), *PROCESSES)

_MESSAGES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind for kind in (cgroups_v1_pb2.Metrics, cgroups_v2_pb2.Metrics)
}
GONE, UNREADABLE = "gone", "unreadable"


def collect(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> Any:
    """Job of a `Worker`: the targets are in the file `fds[0]`, the samples go to `fds[1]`.

    The answer: "parts", a list of metric, start and length in the second file; "failures", a count
    of containers by what was wrong; "dropped", the samples that were too many.
    """
    source, sink = fds
    targets = [Target(*each) for each in json.loads(read_all(source))]
    scrape = Scrape()
    for target in targets:
        scrape.take(target)
    parts, start = [], 0
    for name, text in scrape.sheet.texts():
        data = text.encode()
        write_all(sink, data)
        parts.append((name, start, len(data)))
        start += len(data)
    return {"parts": parts, "failures": scrape.failures, "dropped": scrape.dropped}


class Scrape:
    """The samples of containers, one container after another."""

    def __init__(self) -> None:
        self.sheet = Sheet(FAMILIES)
        self.failures: Counter[str] = Counter()
        self.dropped = 0
        self._cgroups = Collector()
        self._processes = Processes()

    def take(self, target: Target) -> None:
        """One that ends meanwhile is left out, but for what is known without looking."""
        for name, labels, value in target.facts:
            self.sheet.add(name, f"{target.labels},{labels}" if labels else target.labels, value)
        if target.health:
            self._health(target)
        try:
            if target.statistics:
                told = _MESSAGES[target.statistics].FromString(base64.b64decode(target.message))
                self.dropped += cgroups.write(self.sheet, target.labels, told)
            elif target.pid:
                self._look(target)
        except (FileNotFoundError, ProcessLookupError, NotFound):
            self.failures[GONE] += 1
        except (OSError, ValueError, LookupError, DecodeError):
            self.failures[UNREADABLE] += 1

    def _look(self, target: Target) -> None:
        cgroup = cgroup_of(target.pid, target.id)
        statistics = self._cgroups.collect(cgroup)
        # Whose first process is there still has had its cgroup all the time.
        self.dropped += self._processes.write(self.sheet, target.labels, target.pid, cgroup)
        self.dropped += cgroups.write(self.sheet, target.labels, statistics)

    def _health(self, target: Target) -> None:
        try:
            status = json.loads(read_text(target.health))["status"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # not checked yet, or not any more
        for each in ("starting", "healthy", "unhealthy"):
            labels = f'{target.labels},status="{each}"'
            self.sheet.add("orlop_container_health", labels, int(each == status))
