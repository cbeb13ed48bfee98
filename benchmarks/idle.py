"""What containers that do nothing cost: memory, and processor time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import meter
from benchmarks.api import Api, at_once
from benchmarks.measure import Result, at_most
from benchmarks.rivals import Rival
from benchmarks.stage import Stage

_FEW, _SOME, _MANY = 10, 50, 500
_AT_ONCE = 16
_WATCHED = 30.0
_SETTLING = 2.0


def bench_memory(stage: Stage) -> list[Result]:
    """What one more idle container adds, in proportional set size, with ten of them."""
    figures = []
    with stage.apis() as apis:
        for rival, api in zip(stage.rivals, apis, strict=True):
            with idling(rival, api, _FEW):
                figures.append(meter.pss(_shims(rival, _FEW)) / _FEW)
    return [Result.of("shim PSS, of ten", figures, "MB", at_most(0.5))]


def bench_idle(stage: Stage) -> list[Result]:
    """Fifty idle containers."""
    return _bench(stage, _SOME)


def bench_crowd(stage: Stage) -> list[Result]:
    """Five hundred idle containers."""
    return _bench(stage, _MANY)


def _bench(stage: Stage, count: int) -> list[Result]:
    memory, added, cpu, made = [], [], [], []
    with stage.apis() as apis:
        for rival, api in zip(stage.rivals, apis, strict=True):
            without = rival.meter.memory()
            start = time.perf_counter()
            with idling(rival, api, count):
                made.append(count / (time.perf_counter() - start - _SETTLING))
                before = rival.meter.cpu()
                time.sleep(_WATCHED)
                cpu.append((rival.meter.cpu() - before) * 60 / _WATCHED)
                # Last, for to look at a process's memory costs that process time.
                memory.append(rival.meter.memory())
                added.append((memory[-1] - without) / count)
    return [
        Result.of(f"{count} idle: PSS of daemon and shims", memory, "MB", at_most(0.5)),
        Result.of(f"{count} idle: PSS that each adds", added, "MB", at_most(0.5)),
        Result.of(f"{count} idle: CPU per minute of daemon and shims", cpu, "s", at_most(1)),
        Result.of(f"{count} idle: started per second", made, "/s"),
    ]


@contextmanager
def idling(rival: Rival, api: Api, count: int) -> Iterator[None]:
    # Both may have theirs at once, and runC knows them by namespace and name.
    names = [f"idle-{rival.name}-{index}" for index in range(count)]

    def start(name: str) -> None:
        api.create(name, ["sleep", "100000"])
        api.start(name)

    at_once(_AT_ONCE, start, names)
    try:
        time.sleep(_SETTLING)
        yield
    finally:
        at_once(_AT_ONCE, api.kill, names)


def _shims(rival: Rival, count: int) -> set[int]:
    """The parents of the containers' processes."""
    tasks = [line.split() for line in rival.run_ctr("tasks", "ls").splitlines()[1:]]
    found = {meter.parent(int(pid)) for _, pid, _ in tasks}
    if len(found) != count:
        raise RuntimeError(f"{len(found)} shims, {count} expected")
    return found
