"""Timing in turns, budgets, and the table of results."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_REST = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """What a comparison must hold: `text` says it in the table."""

    text: str
    holds: Callable[[float, float], bool]


def at_most(ratio: float) -> Budget:
    """Of orlop's figure to containerd's: a time, a size."""
    return Budget(f"≤ {ratio:g}", lambda ours, theirs: ours <= ratio * theirs)


def at_least(ratio: float) -> Budget:
    """Of orlop's figure to containerd's: a rate."""
    return Budget(f"≥ {ratio:g}", lambda ours, theirs: ours >= ratio * theirs)


def within(limit: float, unit: str) -> Budget:
    """Of orlop's figure alone."""
    return Budget(f"≤ {limit:g} {unit}", lambda ours, _: ours <= limit)


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison: ours and theirs in `unit`, theirs is not a number where there is none.

    Without a budget it is told for its own sake.
    """

    what: str
    ours: float
    theirs: float
    unit: str
    budget: Budget | None = None

    @classmethod
    def of(
        cls, what: str, figures: Iterable[float], unit: str, budget: Budget | None = None
    ) -> Result:
        """`figures` are ours and theirs."""
        ours, theirs = figures
        return cls(what, ours, theirs, unit, budget)

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def held(self) -> bool:
        return self.budget is None or self.budget.holds(self.ours, self.theirs)


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
    budget: Budget | None = None,
    warm_up: int = 1,
    between: Callable[[], object] = lambda: None,
) -> Result:
    """Median times of two actions that alternate; `between` cleans up, untimed."""
    measured = medians(
        lambda: seconds(ours), lambda: seconds(theirs), rounds, warm_up=warm_up, between=between
    )
    return Result.of(what, measured, "s", budget)


def medians(
    ours: Callable[[], float],
    theirs: Callable[[], float],
    rounds: int,
    *,
    warm_up: int = 1,
    between: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """The medians of two figures that are taken in turn, each of a machine that has come to rest:
    what one has the kernel do (grace periods, writeback) is not to serve or to hinder the other."""
    found: tuple[list[float], list[float]] = ([], [])
    for index in range(warm_up + rounds):
        for measure, figures in zip((ours, theirs), found, strict=True):
            time.sleep(_REST)
            figure = measure()
            between()
            if index >= warm_up:
                figures.append(figure)
    return statistics.median(found[0]), statistics.median(found[1])


def show_heading() -> None:
    print(f"{'what':<56}{'orlop':>12}{'containerd':>12}{'ratio':>8}  budget", flush=True)


def show(results: list[Result]) -> None:
    for r in results:
        budget = r.budget.text if r.budget else ""
        print(
            f"{r.what:<56}{_figure(r.ours, r.unit):>12}{_figure(r.theirs, r.unit):>12}"
            f"{_figure(r.ratio):>8}  {budget}{'' if r.held else '  over'}",
            flush=True,
        )


def _figure(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "-"
    if not unit:
        return f"{value:.2f}"
    return f"{value:.3f} {unit}" if value < 100 else f"{value:.0f} {unit}"
