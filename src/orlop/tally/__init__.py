"""Counts that rooms keep of what they do, for whoever reads them; they know nothing of him.

An object that wants to be counted has a `Counter` or a `Timing` among its attributes, and says what
happens. That costs a microsecond. The metrics room reads them when it is asked.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

Values = tuple[str, ...]

MOST = 256
"""Sets of labels that one count keeps apart: what comes after is counted as `OTHER`."""
OTHER = "other"
SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    120.0,
)


class Counter:
    """A sum, one for each set of values of the labels; usable from any thread."""

    def __init__(self, *labels: str, most: int = MOST) -> None:
        self.labels = labels
        self._most = most
        self._lock = threading.Lock()
        self._sums: dict[Values, float] = {} if labels else {(): 0}

    def add(self, *values: str, by: float = 1) -> None:
        with self._lock:
            if values in self._sums:
                self._sums[values] += by
                return
            if len(self._sums) >= self._most:
                values = (OTHER,) * len(self.labels)
            self._sums[values] = self._sums.get(values, 0) + by

    def read(self) -> dict[Values, float]:
        with self._lock:
            return dict(self._sums)


class Exemplar(NamedTuple):
    """One thing that was counted: its trace, how much it was, when (seconds since 1970)."""

    trace: str
    value: float
    at: float


class Distribution:
    """What a `Timing` has counted: `counts` by bucket, the last without a bound; their sum."""

    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def copy(self) -> Distribution:
        made = Distribution(0)
        made.counts, made.sum = list(self.counts), self.sum
        made.exemplars = dict(self.exemplars)
        return made


class Times:
    """What is read of how long things took, in seconds: distributions by values of the labels."""

    labels: Values
    bounds: tuple[float, ...]

    def read(self) -> dict[Values, Distribution]:
        raise NotImplementedError


class Together(Times):
    """What several have counted of the same, by the value of one more label: `parts`' key."""

    def __init__(self, label: str, parts: Mapping[str, Timing]) -> None:
        self._parts = parts
        every = {(timing.labels, timing.bounds) for timing in parts.values()} or {((), SECONDS)}
        ((labels, self.bounds),) = every
        self.labels = (label, *labels)

    def read(self) -> dict[Values, Distribution]:
        return {
            (value, *values): found
            for value, timing in self._parts.items()
            for values, found in timing.read().items()
        }


class Timing(Times):
    """How long things took, in seconds, for each set of values of the labels; from any thread."""

    def __init__(self, *labels: str, bounds: tuple[float, ...] = SECONDS, most: int = MOST) -> None:
        self.labels = labels
        self.bounds = bounds
        self._most = most
        self._lock = threading.Lock()
        self._found: dict[Values, Distribution] = {}
        if not labels:
            self._found[()] = Distribution(len(bounds) + 1)

    def observe(self, seconds: float, *values: str, trace: str = "") -> None:
        """`trace` is the id of the trace that it was part of, if of any."""
        bucket = bisect_left(self.bounds, seconds)
        with self._lock:
            found = self._found.get(values)
            if found is None:
                if len(self._found) >= self._most:
                    values = (OTHER,) * len(self.labels)
                found = self._found.setdefault(values, Distribution(len(self.bounds) + 1))
            found.counts[bucket] += 1
            found.sum += seconds
            if trace:
                found.exemplars[bucket] = Exemplar(trace, seconds, time.time())

    @contextmanager
    def timed(self, *values: str) -> Iterator[None]:
        """Observe how long a block takes, also one that raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began, *values)

    def read(self) -> dict[Values, Distribution]:
        with self._lock:
            return {values: found.copy() for values, found in self._found.items()}
