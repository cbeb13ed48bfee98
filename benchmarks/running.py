"""Containers that run and end: one, many at once, execs, and how soon their end is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.api import Api, at_once
from benchmarks.lean import LeanClient
from benchmarks.measure import Result, at_least, at_most, medians
from benchmarks.rivals import NAMESPACE, Rival, orlop, run
from benchmarks.stage import Stage, name
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.services.events_pb2 import SubscribeRequest
from orlop.wire.types_pb2 import Envelope

_SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"


def bench_run(stage: Stage) -> list[Result]:
    """`ctr run --rm … true`, the same ctr and the same runc; and our own command."""
    image, rounds = stage.with_small(), 5 if stage.quick else 20

    def job(rival: Rival) -> Callable[[], object]:
        return lambda: rival.run_ctr("run", "--rm", image, name(), "true")

    def own() -> object:
        return run(orlop(stage.ours, "run", "--rm", "--name", name(), image, "true"))

    return [
        *stage.compare(
            "ctr run --rm true", job(stage.ours), job(stage.theirs), rounds=rounds,
            budget=at_most(0.65),
        ),
        *stage.compare(
            "orlop run --rm true / ctr run --rm true", own, job(stage.theirs), rounds=rounds
        )[:1],
    ]  # fmt: skip


def bench_rate(stage: Stage) -> list[Result]:
    """Containers that run `true` and are removed, in a second: by ctr, and by the API alone."""
    results = []
    rounds = 1 if stage.quick else 3
    with stage.apis() as (ours, theirs):
        for count, jobs in ((1, 12), (4, 32), (16, 48)):

            def by_ctr(rival: Rival, count: int = count, jobs: int = jobs) -> None:
                at_once(count, lambda each: rival.run_ctr("run", "--rm", stage.small, each, "true"),
                        _names(jobs))  # fmt: skip

            def by_api(api: Api, count: int = count, jobs: int = jobs) -> None:
                at_once(count, lambda each: api.run(each, ["true"]), _names(jobs))

            for by, one, other in (
                ("ctr", lambda: by_ctr(stage.ours), lambda: by_ctr(stage.theirs)),
                ("API", lambda: by_api(ours), lambda: by_api(theirs)),
            ):
                what = f"{count} at a time, {by}"
                taken, cpu = stage.compare(what, one, other, rounds=rounds, per=jobs)
                results += [
                    Result(f"containers per second, {what}", 1000 / taken.ours,
                           1000 / taken.theirs, "/s", at_least(1.5)),
                    cpu,
                ]  # fmt: skip
    return results


def _names(count: int) -> list[str]:
    return [name() for _ in range(count)]


def bench_exec(stage: Stage) -> list[Result]:
    """`true` in a running container: by ctr, and by the API alone."""
    rounds = 5 if stage.quick else 20

    def by_ctr(rival: Rival, container: str) -> Callable[[], object]:
        return lambda: rival.run_ctr("tasks", "exec", "--exec-id", name(), container, "true")

    def by_api(api: Api, container: str) -> Callable[[], object]:
        return lambda: api.exec(container, name(), ["true"])

    with stage.apis() as (ours, theirs), idling(ours) as one, idling(theirs) as other:
        return [
            *stage.compare(
                "ctr tasks exec true", by_ctr(stage.ours, one), by_ctr(stage.theirs, other),
                rounds=rounds, budget=at_most(0.8),
            ),
            *stage.compare(
                "exec true, API", by_api(ours, one), by_api(theirs, other), rounds=rounds,
                budget=at_most(0.8),
            ),
        ]  # fmt: skip


@contextmanager
def idling(api: Api) -> Iterator[str]:
    """A container that sleeps."""
    container = name()
    api.create(container, ["sleep", "1000"])
    try:
        api.start(container)
        yield container
    finally:
        api.kill(container)


def bench_exit(stage: Stage) -> list[Result]:
    """From the kill of a container's process to the event at a subscriber."""
    rounds = 10 if stage.quick else 50
    with stage.apis() as (ours, theirs), _exits(stage.ours) as one, _exits(stage.theirs) as other:
        figures = medians(
            lambda: _until_told(ours, one), lambda: _until_told(theirs, other), rounds
        )
    return [Result.of("exit to event", (1000 * each for each in figures), "ms", at_most(1))]


@contextmanager
def _exits(rival: Rival) -> Iterator[LeanClient]:
    with LeanClient(rival.address, NAMESPACE) as client:
        request = SubscribeRequest(filters=['topic=="/tasks/exit"'])
        client.begin(_SUBSCRIBE, request.SerializeToString())
        time.sleep(0.1)  # until it is subscribed, which nothing tells
        yield client


def _until_told(api: Api, events: LeanClient) -> float:
    container = name()
    pid = api.create(container, ["sleep", "1000"])
    api.start(container)
    start = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    data = events.message()
    passed = time.perf_counter() - start
    told = TaskExit.FromString(Envelope.FromString(data).event.value)
    if told.container_id != container:
        raise RuntimeError(f"{container} was killed, {told.container_id} has ended")
    api.remove(container)
    return passed
