"""What the daemon counts of itself, as Prometheus's library has it.

A `Reading` names a count and says where it is read, when it is: the rooms that count know nothing
of metrics.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from orlop.errors import OrlopError
from orlop.tally import Counter, Distribution, Times, Values

_log = logging.getLogger(__name__)

_END = "# EOF\n"
_TOTAL = "_total"

Numbers = Mapping[Values, float]
Source = Counter | Times | Callable[[], float | Numbers]


class Reading(NamedTuple):
    """A metric of the daemon. One that is a function is a counter if it is named "_total".

    `labels` are those of a function, and may give those of a count other names.
    """

    name: str
    help: str
    source: Source
    labels: tuple[str, ...] = ()


class Internals(Collector):
    """The daemon's own metrics, with those of its process and Python; `text` writes them down.

    One that cannot be read is left out, and counted in `failures`.
    """

    def __init__(self, readings: Iterable[Reading], *, process: bool = True) -> None:
        self._readings = list(readings)
        self.failures = Counter("metric")
        self.registry = CollectorRegistry(auto_describe=False)
        if process:
            GCCollector(self.registry)
            PlatformCollector(self.registry)
            ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            try:
                yield _metric(reading)
            except (OrlopError, OSError, sqlite3.Error) as error:
                _log.warning('metric "%s" cannot be read: %s', reading.name, error)
                self.failures.add(reading.name)

    def text(self, *, openmetrics: bool) -> str:
        """The samples; in OpenMetrics without the end mark."""
        if openmetrics:
            text: str = generate_openmetrics(self.registry).decode()  # type: ignore[no-untyped-call]
            return text.removesuffix(_END)
        return generate_latest(self.registry).decode()


def _metric(reading: Reading) -> Metric:
    name, text, source, labels = reading
    if isinstance(source, Times):
        return _histogram(name, text, labels or source.labels, source)
    if isinstance(source, Counter):
        labels, numbers = labels or source.labels, source.read()
    else:
        told = source()
        numbers = dict(told) if isinstance(told, Mapping) else {(): told}
    kind = CounterMetricFamily if name.endswith(_TOTAL) else GaugeMetricFamily
    metric = kind(name.removesuffix(_TOTAL), text, labels=labels)
    for values, number in numbers.items():
        metric.add_metric(values, number)
    return metric


def _histogram(name: str, text: str, labels: tuple[str, ...], source: Times) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=labels)
    for values, found in source.read().items():
        metric.add_metric(
            values,
            list(_buckets(source.bounds, found)),
            found.sum,
        )
    return metric


def _buckets(
    bounds: tuple[float, ...], found: Distribution
) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    passed = 0
    for number, count in enumerate(found.counts):
        passed += count
        bound = str(bounds[number]) if number < len(bounds) else "+Inf"
        known = found.exemplars.get(number)
        if known is None:
            yield bound, passed
        else:
            yield bound, passed, Exemplar({"trace_id": known.trace}, known.value, known.at)
