"""What a scrape costs, with many containers."""

from __future__ import annotations

import math
import socket
import urllib.request
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import rivals
from benchmarks.idle import idling
from benchmarks.measure import Result, seconds, within
from benchmarks.stage import Stage

_MANY, _FEW = 500, 100
_TIMES = 41
_ROUNDS = 9
_BUDGET = 150  # milliseconds


def bench_scrape(stage: Stage) -> list[Result]:
    """Daemons of their own, with metrics; containerd asks each shim, orlopd reads cgroups."""
    count = _FEW
    ports = [_free_port(), _free_port()]
    sections = [f'[metrics]\naddress = "127.0.0.1:{port}"\n' for port in ports]
    with rivals.orlopd(sections[0]) as ours, rivals.containerd(sections[1]) as theirs:
        inner = replace(stage, ours=ours, theirs=theirs)
        with inner.apis() as apis, ExitStack() as crowd:
            for rival, api in zip(inner.rivals, apis, strict=True):
                crowd.enter_context(idling(rival, api, count))
            actions = [lambda port=port: _scrape(port, count) for port in ports]
            # containerd asks shims that sleep: what they take is in its group's processor time.
            return inner.compare(
                f"scrape of {count} idle containers",
                actions[0],
                actions[1],
                rounds=_ROUNDS,
            )


def bench_scrapes(stage: Stage) -> list[Result]:
    """Orlopd alone: to start as many on containerd takes minutes."""
    port = _free_port()
    section = f'[metrics]\naddress = "127.0.0.1:{port}"\n'
    with (
        rivals.orlopd(section) as ours,
        replace(stage, ours=ours).apis() as apis,
        idling(ours, apis[0], _MANY),
    ):
        _scrape(port, _MANY)  # after which filesystems are measured
        samples = _fetch(port).count(b'{container_id="') / _MANY
        before = ours.meter.cpu()
        times = sorted(seconds(lambda: _scrape(port, _MANY)) for _ in range(_TIMES))
        used = (ours.meter.cpu() - before) / _TIMES
    figures = {
        "median": (times[_TIMES // 2], within(_BUDGET / 1000, "s")),
        "fastest": (times[0], None),
        "slowest": (times[-1], None),
        "CPU of daemon and workers": (used, None),
    }
    title = f"scrape of {_MANY} idle containers"
    results = [
        Result(f"{title}: {what}", figure, math.nan, "s", budget)
        for what, (figure, budget) in figures.items()
    ]
    return [*results, Result(f"{title}: samples of each", samples, math.nan, "")]


def _scrape(port: int, count: int) -> None:
    """Plain, so that it can be looked at; fails unless every container is there."""
    found = _fetch(port).count(b"\ncontainer_pids_current{")
    if found != count:
        raise RuntimeError(f"{found} containers in the metrics, {count} expected")


def _fetch(port: int) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/metrics", headers={"Accept-Encoding": "identity"}
    )
    with urllib.request.urlopen(request) as answer:
        text: bytes = answer.read()
    return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
