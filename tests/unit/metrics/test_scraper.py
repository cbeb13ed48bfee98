"""What ails the machine hides nothing that can still be told."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.containers import ContainerStore
from orlop.errors import DataLoss
from orlop.events import Exchange
from orlop.gc import Collector
from orlop.metadata import Database
from orlop.metrics.containers import Containers, Options
from orlop.metrics.filesystems import Filesystems
from orlop.metrics.internals import Internals, Reading
from orlop.metrics.labels import Labels
from orlop.metrics.scraper import Outcomes, Scraper
from tests.metrics_fixture import Metrics


def _damage(path: Path) -> None:
    """Nothing but the first page, which says what the file is, is left of it."""
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    length = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"\xee" * (length - size))


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_damaged_database_hides_the_containers_alone(tmp_path: Path, openmetrics: bool) -> None:
    with closing(Database(tmp_path / "metadata.db")) as database:
        _damage(database.path)
        with pytest.raises(DataLoss):
            Collector(database, {}).waiting()
        task = SimpleNamespace(namespace="n", id="a")
        tasks: Any = SimpleNamespace(everything=lambda: [task, task])
        nothing: Any = None
        containers = Containers(
            nothing,
            tasks,
            ContainerStore(database, Exchange()),
            Filesystems(nothing, {}, 60),
            Options(Labels(), 10, Path("/none")),
        )
        readings = [
            Reading("orlop_gc_waiting", "", lambda: Collector(database, {}).waiting()[0]),
            Reading("orlop_shims", "", lambda: 3),
        ]
        scraper = Scraper(Internals(readings), containers, Outcomes(10))
        for _ in range(2):
            text = scraper.text(openmetrics=openmetrics, every_unit=False).decode()
    found = Metrics(text, openmetrics=openmetrics)
    assert found.one("orlop_shims") == 3
    assert found.one("process_resident_memory_bytes") > 0
    assert not found.all("orlop_gc_waiting")
    assert found.one("orlop_metrics_unread_total", metric="orlop_gc_waiting") == 2
    assert found.one("orlop_metrics_container_failures_total", reason="unknown") == 4
