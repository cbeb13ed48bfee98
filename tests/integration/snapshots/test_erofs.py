"""What is particular about snapshots whose layers are images."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.diff.sealing import Sealer
from orlop.erofs import folders
from orlop.errors import DataLoss, ResourceExhausted
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.snapshots import ErofsDriver, SnapshotIds, SnapshotStore
from orlop.sys.mount import MNT_DETACH, Mount, mount_all, unmount
from tests.nasty_tree import deep

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


@contextmanager
def opened(root: Path, forks: ForkServer) -> Iterator[SnapshotStore]:
    database = Database(root / "meta.db")
    driver = ErofsDriver(root / "erofs", Sealer(forks))
    made = SnapshotStore(database, SnapshotIds(database), "erofs", driver, Exchange())
    made.cleanup()
    try:
        yield made
    finally:
        made.close()
        database.close()
    assert f"{root}/" not in Path("/proc/self/mountinfo").read_text()


@contextmanager
def mounted(mounts: list[Mount], root: Path) -> Iterator[Path]:
    target = root / "mnt"
    target.mkdir(exist_ok=True)
    mount_all(mounts, target)
    try:
        yield target
    finally:
        unmount(target)


def _layers(store: SnapshotStore, root: Path) -> None:
    with mounted(store.prepare("ns", "work"), root) as target:
        (target / "d").mkdir()
        (target / "d/a").write_text("a")
    store.commit("ns", "one", "work")
    with mounted(store.prepare("ns", "work", "one"), root) as target:
        (target / "d/a").unlink()
        (target / "d/b").write_text("b")
    store.commit("ns", "two", "work")


def test_only_the_image_stays(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        for number in store.driver.numbers():
            found = {path.name for path in store.driver.folder(number).iterdir()}
            assert found - {"layer"} == {folders.MARKER, folders.LAYER}


def test_layers_are_mounted_again_by_the_next_daemon(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        mounts = store.prepare("ns", "top", "two")
    with pytest.raises(OSError, match="No such file"), mounted(mounts, tmp_path):
        pass  # what an earlier daemon said is no empty root
    with opened(tmp_path, forks) as store:
        with mounted(store.mounts("ns", "top"), tmp_path) as target:
            assert [path.name for path in (target / "d").iterdir()] == ["b"]
            (target / "new").write_text("x")
        store.commit("ns", "three", "top")
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert (target / "new").read_text() == "x"


def test_a_container_runs_on_without_the_daemon(tmp_path: Path, forks: ForkServer) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        mount_all(store.prepare("ns", "top", "two"), target)
        store.close()
        assert (target / "d/b").read_text() == "b"
        (target / "d/c").write_text("c")
        unmount(target)


def test_a_mount_point_that_a_crash_has_left(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        numbers = store.driver.numbers()
    for number in numbers:  # as after a reboot
        (tmp_path / f"erofs/snapshots/{number}/layer").mkdir()
    with opened(tmp_path, forks) as store:
        assert not any((store.driver.folder(each) / "layer").exists() for each in numbers)


def test_writing_goes_on_after_a_commit_that_failed(tmp_path: Path, forks: ForkServer) -> None:
    """The image that was made is under what was written then; the next commit has both."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        with mounted(store.prepare("ns", "work", "two"), tmp_path) as target:
            (target / "first").write_text("1")
            (target / "d/b").unlink()
        with pytest.raises(Exception, match="already exists"):
            store.commit("ns", "one", "work")
        with mounted(store.mounts("ns", "work"), tmp_path) as target:
            assert (target / "first").read_text() == "1"
            (target / "second").write_text("2")
            (target / "d/c").write_text("c")
        store.commit("ns", "three", "work")
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert sorted(path.name for path in target.iterdir()) == ["d", "first", "second"]
            assert [path.name for path in (target / "d").iterdir()] == ["c"]


def test_a_damaged_image(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
    image = next((tmp_path / "erofs/snapshots").glob(f"*/{folders.LAYER}"))
    with image.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(128))
    with opened(tmp_path, forks) as store:
        with pytest.raises(DataLoss, match="cannot be mounted"):
            store.prepare("ns", "top", "two")
        assert [info.name for info in store.list("ns")] == ["one", "two"]


def test_a_full_disk_at_commit(tmp_path: Path, forks: ForkServer) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=3m",))], small)
    try:
        with opened(small, forks) as store:
            with mounted(store.prepare("ns", "work"), tmp_path) as target:
                (target / "big").write_bytes(os.urandom(3 << 19))
            with pytest.raises(ResourceExhausted):
                store.commit("ns", "done", "work")
            assert not list((small / "erofs/snapshots").glob("*/*.erofs"))
            with mounted(store.mounts("ns", "work"), tmp_path) as target:
                (target / "big").write_bytes(b"less")
            store.commit("ns", "done", "work")
            store.remove("ns", "done")
    finally:
        unmount(small, MNT_DETACH)


def test_deep_folders_are_committed(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        with mounted(store.prepare("ns", "work"), tmp_path) as target:
            deep(target / "d", 1500)
        store.commit("ns", "done", "work")
        (number,) = store.driver.numbers()
        assert not (store.driver.folder(number) / "fs").exists()


def test_files_that_cannot_be_deleted(tmp_path: Path, forks: ForkServer) -> None:
    """A commit is one whatever it leaves, and the next daemon starts."""
    with opened(tmp_path, forks) as store:
        with mounted(store.prepare("ns", "work"), tmp_path) as target:
            (target / "file").write_text("x")
        (number,) = store.driver.numbers()
        content = store.driver.content(number)
        subprocess.run(["chattr", "+i", content / "file"], check=True)
        try:
            store.commit("ns", "done", "work")
            store.cleanup()  # as the next daemon does
        finally:
            subprocess.run(["chattr", "-i", content / "file"], check=True)
        assert [info.name for info in store.list("ns")] == ["done"]
        store.cleanup()
        assert not content.exists()
