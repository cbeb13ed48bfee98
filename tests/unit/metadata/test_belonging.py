"""A database and its folders, of which one is there without the other."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from orlop.content import ContentStore
from orlop.errors import FailedPrecondition
from orlop.events import Exchange
from orlop.metadata import Database, belonging
from orlop.snapshots import OverlayDriver, SnapshotIds, SnapshotStore

_NAMES = ("overlayfs", "native")


@contextmanager
def opened(root: Path) -> Iterator[tuple[ContentStore, SnapshotStore]]:
    """The stores of a root as a daemon opens them."""
    database = Database(root / "metadata.db")
    try:
        belonging.claim(database, belonging.places(root, _NAMES))
        content = ContentStore(database, root / "content", Exchange())
        content.reap()
        driver = OverlayDriver(root / "snapshots/overlayfs")
        ids = SnapshotIds(database)
        snapshots = SnapshotStore(database, ids, "overlayfs", driver, Exchange())
        snapshots.reap()
        yield content, snapshots
        snapshots.close()
    finally:
        database.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One with a blob and a snapshot with a file."""
    path = tmp_path / "root"
    with opened(path) as (content, snapshots):
        with content.writer("ns", "ref") as writer:
            writer.write(b"cargo")
            writer.commit()
        snapshots.prepare("ns", "box")
        (snapshots.folder("ns", "box") / "log").write_text("written")
    return path


def whole(root: Path) -> bool:
    with opened(root) as (content, snapshots):
        (info,) = content.list("ns")
        assert content.read("ns", info.digest) == b"cargo"
        return (snapshots.folder("ns", "box") / "log").read_text() == "written"


def refusal(root: Path) -> str:
    with pytest.raises(FailedPrecondition) as caught, opened(root):
        pass
    return caught.value.message


def follow(advice: str) -> None:
    """Do what an error says."""
    command = advice.partition("the other: ")[2]
    subprocess.run(command, shell=True, check=True, capture_output=True)


def forget(root: Path) -> None:
    """Make it a root from before there were marks."""
    for path in root.rglob(belonging.MARK):
        path.unlink()
    database = Database(root / "metadata.db")
    with database.write() as tx:
        tx.execute("DELETE FROM labels WHERE kind = 'root'")
    database.close()


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("lost", ["content", "snapshots/overlayfs", "snapshots"])
@pytest.mark.parametrize("stays", [False, True])
def test_a_folder_that_is_not_mounted(root: Path, lost: str, older: bool, stays: bool) -> None:
    """Neither the records go, nor, when it is back, the files."""
    if older:
        forget(root)
    (root / lost).rename(root / "elsewhere")
    if stays:
        (root / lost).mkdir()  # the mount point
    for _ in range(2):
        told = refusal(root)
        assert "mounted?" in told and f"{root / lost}" in told
    shutil.rmtree(root / lost, ignore_errors=True)
    (root / "elsewhere").rename(root / lost)
    assert whole(root)
    assert whole(root)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("lost", ["content", "snapshots/overlayfs"])
def test_a_mount_point_that_was_used(root: Path, lost: str, older: bool) -> None:
    """A start without the disk may have left folders in it, long ago."""
    if older:
        forget(root)
    (root / lost).rename(root / "elsewhere")
    for path in (root / "elsewhere").rglob("*"):
        if path.is_dir():
            (root / lost / path.relative_to(root / "elsewhere")).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / lost / "snapshots/1", ignore_errors=True)
    for _ in range(2):
        told = refusal(root)
        assert "mounted?" in told and f"{root / lost}" in told
    shutil.rmtree(root / lost)
    (root / "elsewhere").rename(root / lost)
    assert whole(root)


@pytest.mark.parametrize("older", [False, True])
def test_a_database_that_was_removed(root: Path, older: bool) -> None:
    """What is on disk waits for the right one."""
    if older:
        forget(root)
    shutil.copy(root / "metadata.db", root / "copy")
    for _ in range(2):
        for path in root.glob("metadata.db*"):
            path.unlink()
        told = refusal(root)
        assert "does not tell of what is in" in told and "whole.db" in told
        assert f'{root}/content"' in told and f'{root}/snapshots/overlayfs"' in told
        assert "native" not in told
    refusal(root)
    for path in root.glob("metadata.db*"):
        path.unlink()
    (root / "copy").rename(root / "metadata.db")
    assert whole(root)


def test_another_roots_database(root: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "other") as (content, _), content.writer("ns", "ref") as writer:
        writer.write(b"other")
        writer.commit()
    shutil.copy(tmp_path / "other/metadata.db", root / "metadata.db")
    assert "another root's?" in refusal(root)


@pytest.mark.parametrize("older", [False, True])
def test_going_on_without_the_database(root: Path, older: bool) -> None:
    """What the error says to do gives up the files."""
    if older:
        forget(root)
    for path in root.glob("metadata.db*"):
        path.unlink()
    follow(refusal(root))
    with opened(root) as (content, snapshots):
        assert content.list("ns") == [] == snapshots.list("ns")
    assert not list(root.glob("content/blobs/*/*"))
    with opened(root):
        pass


@pytest.mark.parametrize("older", [False, True])
def test_going_on_without_a_folder(root: Path, older: bool) -> None:
    """What the error says to do gives up the records."""
    if older:
        forget(root)
    (root / "content").rename(root / "elsewhere")
    follow(refusal(root))
    with opened(root) as (content, snapshots):
        assert content.list("ns") == []
        assert [info.name for info in snapshots.list("ns")] == ["box"]
    with opened(root):
        pass


def test_an_older_root_gets_marks(root: Path) -> None:
    """Also when that was broken off after any of them, or had no room."""
    with opened(root):
        pass
    places = belonging.places(root, _NAMES)
    for done in range(len(places)):
        forget(root)
        for place in places[:done]:
            belonging.mark_folder(place.folder, "0123")
        assert whole(root)
        marks = {place.mark() for place in places}
        assert len(marks) == 1 and (marks == {"0123"} or not done)
        assert whole(root)


def test_no_room_for_marks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not keep an older root from being used; it gets them when there is room."""
    forget(root)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(belonging, "mark_folder", full)
        assert whole(root)
    assert whole(root)
    assert all(place.mark() for place in belonging.places(root, _NAMES))


def test_a_new_root_that_was_broken_off(tmp_path: Path) -> None:
    """Nothing is there yet, so nothing can be lost."""
    for lost in ("content", "snapshots/native"):
        with opened(tmp_path):
            pass
        (tmp_path / lost / belonging.MARK).write_text("")
    for path in tmp_path.glob("metadata.db*"):
        path.unlink()
    with opened(tmp_path):
        pass


def test_a_snapshotter_that_is_new(root: Path) -> None:
    shutil.rmtree(root / "snapshots/native")
    assert whole(root)
    assert (root / "snapshots/native" / belonging.MARK).exists()


def test_a_file_that_is_lost_alone(root: Path) -> None:
    """As ever: its records go, and all else stays."""
    (blob,) = root.glob("content/blobs/*/*")
    blob.unlink()
    with opened(root) as (content, snapshots):
        assert content.list("ns") == []
        assert [info.name for info in snapshots.list("ns")] == ["box"]


@contextmanager
def readonly(folder: Path) -> Iterator[None]:
    """Such a filesystem at a folder, with what it has."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def dangling(folder: Path) -> Iterator[None]:
    aside = folder.rename(folder.with_name("aside"))
    folder.symlink_to(folder / "nowhere")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


@pytest.mark.parametrize("how", [readonly, dangling])
@pytest.mark.parametrize("older", [False, True])
def test_a_snapshotter_that_is_broken(
    root: Path, how: Callable[[Path], AbstractContextManager[None]], older: bool
) -> None:
    """All else goes on; an older root is one until all of it has marks."""
    folder = root / "snapshots/native"
    (folder / "snapshots").mkdir()
    (folder / belonging.MARK).unlink()
    if older:
        forget(root)
    for _ in range(2):
        with how(folder):
            database = Database(root / "metadata.db")
            assert list(belonging.claim(database, belonging.places(root, _NAMES))) == [folder]
            with database.read() as tx:
                assert bool(belonging.mark_of(tx)) is not older
            database.close()
            assert whole(root)
        assert not (folder / belonging.MARK).exists()
    assert whole(root)
    assert all(place.mark() for place in belonging.places(root, _NAMES))
