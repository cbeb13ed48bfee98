"""What the results of checks say about a container (Docker's State.Health)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from orlop.oci.healthcheck import Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
FAILED = -1
"""The exit code of a check that could not be run, or did not end in time."""
RESULTS_MAX = 5


@dataclass(frozen=True, slots=True)
class Result:
    """One check: from when to when (Unix time in nanoseconds), how it ended and what it said."""

    start: int
    end: int
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """A container's health since its task with `pid` was started, at `started`.

    `exec_id` is the check that is being run.
    """

    pid: int
    started: int
    status: str = STARTING
    failing_streak: int = 0
    results: tuple[Result, ...] = ()
    exec_id: str = ""

    def after(self, result: Result, check: Healthcheck) -> Health:
        """The health that one more result makes; `check` has its defaults."""
        status, streak = self.status, self.failing_streak
        if result.exit_code == 0:
            status, streak = HEALTHY, 0
        elif status != STARTING or result.start - self.started >= check.start_period:
            streak += 1
            if streak >= check.retries:
                status = UNHEALTHY
        results = (*self.results, result)[-RESULTS_MAX:]
        return replace(self, status=status, failing_streak=streak, results=results, exec_id="")

    def pause(self, check: Healthcheck, now: int) -> int:
        """Nanoseconds until the next check; there is one when the start period is over."""
        left = self.started + check.start_period - now
        if left <= 0 or self.status != STARTING:
            return check.interval
        return min(check.start_interval, left)

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Health:
        results = tuple(Result(**each) for each in document["results"])
        return cls(**{**document, "results": results})
