#!/usr/bin/env python3
"""Write the tables of docs/metrics.md; needs the package installed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orlop.content import ContentStore
from orlop.daemon.readings import readings
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.gc.collector import Collector
from orlop.gc.scheduler import Scheduler
from orlop.metadata import Database
from orlop.metrics import cgroups, processes, target
from orlop.metrics.family import Family
from orlop.metrics.internals import Internals, Reading
from orlop.metrics.scraper import Outcomes, Scraper
from orlop.rpc.calls import Calls
from orlop.tally import Counter, Times, Timing
from orlop.transfer import Puller
from orlop.transfer.resolver import Resolver
from orlop.transfer.unpacking import Unpacking

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
MARK = "<!-- From here on written by scripts/document_metrics.py -->\n"

Row = tuple[str, str, str, str]


def page() -> str:
    """The page as it should be."""
    head = PAGE.read_text().partition(MARK)[0]
    return f"{head.rstrip()}\n\n{MARK}\n{''.join(_sections())}"


def _sections() -> Iterator[str]:
    yield _table("Containers: cgroups", map(_family, cgroups.families()))
    yield _table("Containers: processes and network", map(_family, processes.FAMILIES))
    yield _table("Containers: what orlopd knows", map(_family, target.FACTS))
    with tempfile.TemporaryDirectory() as folder:
        own = list(_readings(Path(folder)))
    yield _table("The daemon", map(_reading, own))
    yield _table("Its process and Python", _library())


def _table(title: str, rows: Iterable[Row]) -> str:
    lines = [f"## {title}", "", "| metric | type | labels | |", "|---|---|---|---|"]
    for name, kind, labels, text in rows:
        escaped = text.replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {labels} | {escaped} |")
    return "\n".join(lines) + "\n\n"


def _family(family: Family) -> Row:
    return family.name, family.kind, ", ".join(family.labels), family.help


def _reading(reading: Reading) -> Row:
    kind = "counter" if reading.name.endswith("_total") else "gauge"
    if isinstance(reading.source, Times):
        kind = "histogram"
    labels = reading.labels or getattr(reading.source, "labels", ())
    return reading.name, kind, ", ".join(labels), reading.help


def _readings(folder: Path) -> Iterator[Reading]:
    nothing: Any = SimpleNamespace(shims=None)
    forks, exchange = ForkServer(), Exchange()
    with closing(Database(folder / "metadata.db")) as database:
        content = ContentStore(database, folder / "content", exchange)
        shelves: Any = {"": SimpleNamespace(operations=Timing("operation"))}
        unpacking = Unpacking({}, nothing, nothing, forks)
        puller = Puller(content, nothing, nothing, unpacking)
        servers: Any = {name: (nothing, Calls()) for name in ("grpc", "ttrpc")}
        transfers = {"puller": puller, "unpacking": unpacking, "resolver": Resolver(nothing)}
        rooms: Any = SimpleNamespace(
            ground=SimpleNamespace(forks=forks, exchange=exchange, database=database),
            storage=SimpleNamespace(content=content, shelves=shelves),
            transfers=SimpleNamespace(**transfers),
            execution=SimpleNamespace(tasks=nothing),
            watchers=SimpleNamespace(
                garbage=Scheduler(Collector(database, {})),
                restarts=SimpleNamespace(looks=Counter("reason")),
            ),
        )
        yield from readings(rooms, servers, Counter("outcome"))
    yield from Scraper(Internals([]), nothing, Outcomes(0)).readings


def _library() -> Iterator[Row]:
    for metric in Internals([]).registry.collect():
        labels = sorted({name for sample in metric.samples for name in sample.labels})
        total = "_total" if metric.type == "counter" else ""
        yield f"{metric.name}{total}", metric.type, ", ".join(labels), metric.documentation


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
