"""Timing in turns, and the table of results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison: ours and theirs in `unit`, and the most that the ratio may be."""

    what: str
    ours: float
    theirs: float
    unit: str
    budget: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    budget: float,
    warm_up: int = 1,
    between: Callable[[], object] = lambda: None,
) -> Result:
    """Median times of two actions that alternate; `between` cleans up, untimed."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(warm_up + rounds):
        for action, taken in zip((ours, theirs), times, strict=True):
            passed = seconds(action)
            between()
            if index >= warm_up:
                taken.append(passed)
    return Result(what, statistics.median(times[0]), statistics.median(times[1]), "s", budget)


def show(results: list[Result]) -> None:
    print(f"{'what':<44}{'orlop':>12}{'containerd':>12}{'ratio':>8}{'budget':>8}")
    for r in results:
        verdict = "" if r.ratio <= r.budget else "  over"
        print(
            f"{r.what:<44}{_figure(r.ours, r.unit):>12}{_figure(r.theirs, r.unit):>12}"
            f"{r.ratio:>8.2f}{r.budget:>8.2f}{verdict}"
        )


def _figure(value: float, unit: str) -> str:
    return f"{value:.3f} {unit}" if value < 100 else f"{value:.0f} {unit}"
