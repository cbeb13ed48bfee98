"""One scrape: the daemon's own metrics and those of its containers, as one text."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

from orlop import tally
from orlop.metrics.containers import Containers, Found
from orlop.metrics.internals import Internals, Reading
from orlop.metrics.worker import FAMILIES
from orlop.web.shared import Shared

END = b"# EOF\n"


class Outcomes:
    """What scrapes have met, which the next one tells."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.seconds = tally.Timing()
        self.failures = tally.Counter("reason")
        self.dropped = tally.Counter()
        self._last: Found | None = None

    def take(self, found: Found) -> None:
        for reason, count in found.failures.items():
            self.failures.add(reason, by=count)
        self.dropped.add(by=found.dropped)
        self._last = found

    def _containers(self) -> float:
        return self._last.containers if self._last else 0

    def _omitted(self) -> float:
        return self._last.omitted if self._last else 0

    def readings(self) -> list[Reading]:
        return [
            Reading("orlop_metrics_scrape_seconds", "Time that scrapes took", self.seconds),
            Reading(
                "orlop_metrics_container_failures_total",
                "Containers that a scrape could not look at, by reason",
                self.failures,
            ),
            Reading(
                "orlop_metrics_dropped_samples_total",
                "Samples left out because a container has too many of a metric",
                self.dropped,
            ),
            Reading(
                "orlop_metrics_containers", "Containers of the present scrape", self._containers
            ),
            Reading(
                "orlop_metrics_containers_omitted",
                "Containers with a task that are beyond metrics.max_containers",
                self._omitted,
            ),
            Reading("orlop_metrics_containers_limit", "metrics.max_containers", lambda: self._most),
        ]


class Scraper:
    """Makes the text; who asks while it is made for another waits, and may get the same."""

    def __init__(self, internals: Internals, containers: Containers, outcomes: Outcomes) -> None:
        self._internals = internals
        self._containers = containers
        self._outcomes = outcomes
        unread = Reading(
            "orlop_metrics_unread_total",
            "How often a scrape could not read a metric of the daemon, by metric",
            internals.failures,
        )
        self.readings = (*outcomes.readings(), unread)
        self._own = Internals(self.readings, process=False)
        self._shared = {
            each: Shared(partial(self._text, *each)) for each in product((False, True), repeat=2)
        }

    def text(self, *, openmetrics: bool, every_unit: bool) -> bytes:
        """Without `every_unit`, metrics that are told in Prometheus's units are told so only."""
        return self._shared[openmetrics, every_unit].get()

    def _text(self, openmetrics: bool, every_unit: bool) -> bytes:
        began = time.perf_counter()
        # While workers look at the containers.
        with ThreadPoolExecutor(1, thread_name_prefix="scrape") as pool:
            internals = pool.submit(self._internals.text, openmetrics=openmetrics)
            found = self._containers.collect()
        self._outcomes.take(found)
        pieces = [internals.result().encode(), self._own.text(openmetrics=openmetrics).encode()]
        for family in FAMILIES:
            wanted = every_unit or family.in_base_units
            if wanted and (texts := found.parts.get(family.name)):
                pieces.append(family.head(openmetrics=openmetrics).encode())
                pieces += texts
        if openmetrics:
            pieces.append(END)
        text = b"".join(pieces)
        self._outcomes.seconds.observe(time.perf_counter() - began)
        return text
