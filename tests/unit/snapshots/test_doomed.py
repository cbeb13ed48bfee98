"""What a remote snapshotter is to remove goes in the end, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from orlop.errors import Unavailable, Unknown
from orlop.metadata import Database, Transaction
from orlop.snapshots import proxied
from orlop.snapshots.proxied import Doomed
from tests.patience import wait_for


class _Remote:
    name = "far"

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.refused: set[str] = set()

    def remove(self, namespace: str, name: str) -> None:
        if name in self.refused:
            raise Unknown("the disk")
        self.removed.append(f"{namespace}/{name}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "meta.db")
    yield database
    database.close()


def test_a_bad_moment_of_the_database_does_not_end_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxied, "_AGAIN", 0.01)
    with database.write() as tx:
        tx.execute("INSERT INTO proxied_snapshots VALUES ('far', 'ns', 'old', NULL)")
    failures: list[int] = []
    real = database.read

    def read() -> AbstractContextManager[Transaction]:
        if len(failures) < 3:
            failures.append(1)
            raise Unavailable("the disk")
        return real()

    monkeypatch.setattr(database, "read", read)
    remote = _Remote()
    doomed = Doomed(database, cast("Any", remote))
    try:
        wait_for(lambda: remote.removed == ["ns/old"])
    finally:
        doomed.close()
    assert len(failures) == 3


def test_one_that_is_refused_does_not_hold_up_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxied, "_AGAIN", 0.01)
    with database.write() as tx:
        for name in ("a", "b", "c"):
            proxied.announce(tx, "far", "ns", name)
    remote = _Remote()
    remote.refused.add("a")
    doomed = Doomed(database, cast("Any", remote))
    try:
        wait_for(lambda: remote.removed == ["ns/b", "ns/c"])
        assert [record.message for record in caplog.records if "WARN" in record.levelname] == [
            'snapshotter=far cannot remove "a", and tries on: the disk: unknown'
        ]
        remote.refused.clear()
        wait_for(lambda: "ns/a" in remote.removed)
        wait_for(lambda: not doomed.waiting())
    finally:
        doomed.close()
