"""Snapshots whose folder is gone."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from orlop.errors import NotFound
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.snapshots import Kind, OverlayDriver, SnapshotIds, SnapshotStore, volatile
from orlop.snapshots.model import Usage

pytestmark = pytest.mark.root


def test_only_what_was_just_prepared_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It had nothing yet; an empty folder does not stand for what others had."""

    def store() -> SnapshotStore:
        driver = OverlayDriver(tmp_path / "snapshots")
        return SnapshotStore(database, SnapshotIds(database), "overlayfs", driver, Exchange())

    wanted = {"old": {}, "volatile": {volatile.LABEL: "true"}, "odd": {}, "new": {}}
    with closing(Database(tmp_path / "metadata.db")) as database:
        with closing(store()) as first:
            folders = {}
            for key, labels in wanted.items():
                first.prepare("n", key, labels=labels)
                folders[key] = first.folder("n", key)
        with database.write() as tx:
            tx.execute(
                "UPDATE snapshots SET created_at = created_at - 301000000000 WHERE key = 'old'"
            )
            tx.execute(
                "INSERT INTO labels (kind, namespace, owner, key, value)"
                " VALUES ('snapshot/overlayfs', 'n', 'odd', ?, 'maybe')",
                (volatile.LABEL,),
            )
        for folder in folders.values():
            shutil.rmtree(folder.parent)
        with closing(store()) as second:
            second.reap()
            assert [key for key, folder in folders.items() if folder.exists()] == ["new"]
            assert {info.kind for info in second.list("n")} == {Kind.ACTIVE}
    for key in ("old", "volatile", "odd"):
        assert f'"{key}" is lost' in caplog.text
    assert '"new" was lost, and is as new' in caplog.text


def test_a_measure_of_what_is_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there, as before and after; a folder that was lost is a failure."""
    driver = OverlayDriver(tmp_path / "snapshots")
    with (
        closing(Database(tmp_path / "metadata.db")) as database,
        closing(
            SnapshotStore(database, SnapshotIds(database), "overlayfs", driver, Exchange())
        ) as store,
    ):
        for key in ("lost", "removed"):
            store.prepare("n", key)
        shutil.rmtree(store.folder("n", "lost"))
        with pytest.raises(FileNotFoundError):
            store.usage("n", "lost")
        usage = driver.usage

        def late(number: int) -> Usage:
            store.remove("n", "removed")
            return usage(number)

        monkeypatch.setattr(driver, "usage", late)
        with pytest.raises(NotFound, match='snapshot "removed"'):
            store.usage("n", "removed")
