"""What waits for its deletion is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orlop.events import Exchange
from orlop.metadata import Database
from orlop.snapshots import NativeDriver, SnapshotIds, SnapshotStore
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


class Slow(NativeDriver):
    """Deletes when it may."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.may = threading.Event(), threading.Event()

    def destroy(self, path: Path) -> None:
        self.begun.set()
        assert self.may.wait(60)
        super().destroy(path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "metadata.db")) as made:
        yield made


def test_snapshots_that_wait(database: Database, tmp_path: Path) -> None:
    driver = Slow(tmp_path / "snapshots")
    store = SnapshotStore(database, SnapshotIds(database), "native", driver, Exchange())
    with closing(store):
        try:
            for key in "abc":
                store.prepare("n", key)
            store.remove("n", "a")
            assert driver.begun.wait(60)
            store.remove("n", "b")
            store.remove("n", "c")
            assert store.undeleted() == 3
        finally:
            driver.may.set()
        Orlopd.wait_for(lambda: store.undeleted() == 0)
