"""What is particular about snapshots whose layers are images."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.diff.apply import Limits, start_index
from orlop.diff.sealing import Sealer
from orlop.erofs import folders
from orlop.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound, ResourceExhausted
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.snapshots import ErofsDriver, SnapshotIds, SnapshotStore
from orlop.snapshots.model import Usage
from orlop.sys.loop import mount_image
from orlop.sys.mount import MNT_DETACH, Mount, mount_all, mount_points, unmount
from tests.disks import formatted
from tests.mounting import mounted
from tests.nasty_tree import deep
from tests.patience import patient

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
    made.reap()
    try:
        yield made
    finally:
        made.close()
        database.close()
    assert f"{root}/" not in Path("/proc/self/mountinfo").read_text()


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
    """What was mounted stays on what it was on, and the next commit has all, and no more."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        with mounted(store.prepare("ns", "work", "two"), tmp_path) as target:
            (target / "first").write_text("1")
            (target / "d/b").unlink()
        _fail_to_commit(store, "work")
        with mounted(store.mounts("ns", "work"), tmp_path) as target:
            assert (target / "first").read_text() == "1"
            (target / "second").write_text("2")
            (target / "d/c").write_text("c")
        store.commit("ns", "three", "work")
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert sorted(path.name for path in target.iterdir()) == ["d", "first", "second"]
            assert [path.name for path in (target / "d").iterdir()] == ["c"]


def _fail_to_commit(store: SnapshotStore, key: str) -> None:
    """After all has been written."""
    with pytest.raises(InvalidArgument, match="label"):
        store.commit("ns", "three", key, labels={"key": "v" * 5000})


def test_what_is_deleted_after_a_commit_that_failed(tmp_path: Path, forks: ForkServer) -> None:
    """By who has it mounted all the time."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        with mounted(store.prepare("ns", "work", "two"), tmp_path) as target:
            (target / "first").write_text("1")
            (target / "new").mkdir()
            (target / "new/file").write_text("x")
            _fail_to_commit(store, "work")
            (target / "first").unlink()
            (target / "new/file").unlink()
            (target / "d/c").write_text("c")
        store.commit("ns", "three", "work")
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert sorted(path.name for path in target.iterdir()) == ["d", "new"]
            assert list((target / "new").iterdir()) == []
            assert sorted(path.name for path in (target / "d").iterdir()) == ["b", "c"]


def test_a_commit_that_a_crash_has_left_unsettled(tmp_path: Path, forks: ForkServer) -> None:
    """Its layer is what it was sealed as, for who is first to ask."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        with mounted(store.prepare("ns", "work", "two"), tmp_path) as target:
            (target / "first").write_text("1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.driver, "settle", lambda _: None)
            store.commit("ns", "three", "work")
        number = max(store.driver.numbers())
        assert (store.driver.folder(number) / folders.SEALED).exists()
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert (target / "first").read_text() == "1"
        store.reap()
        found = {path.name for path in store.driver.folder(number).iterdir()}
        assert found == {folders.MARKER, folders.LAYER, "layer"}
        with mounted(store.mounts("ns", "look"), tmp_path) as target:
            assert (target / "first").read_text() == "1"


def test_a_commit_that_is_asked_for_again_meanwhile(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        with mounted(store.prepare("ns", "work"), tmp_path) as target:
            for number in range(300):
                (target / str(number)).write_bytes(os.urandom(5000))
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(store.commit, "ns", "done", "work") for _ in range(3)]
            problems = [each.exception() for each in done]
        assert problems.count(None) == 1
        assert sum(isinstance(each, AlreadyExists) for each in problems) == 2
        with mounted(store.view("ns", "look", "done"), tmp_path) as target:
            assert sum(len(path.read_bytes()) for path in target.iterdir()) == 300 * 5000


def test_a_commit_of_what_is_removed_meanwhile(
    tmp_path: Path, forks: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, forks) as store:
        store.prepare("ns", "work")
        seal = store.driver.seal

        def late(number: int, parents: Sequence[int]) -> Usage:
            store.remove("ns", "work")
            return seal(number, parents)

        monkeypatch.setattr(store.driver, "seal", late)
        with pytest.raises(NotFound, match='snapshot "work"'):
            store.commit("ns", "done", "work")
        assert store.list("ns") == []


def test_who_mounts_what_is_removed_meanwhile(tmp_path: Path, forks: ForkServer) -> None:
    """It is gone for them; and what an earlier daemon left mounted in the trash is deleted."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        driver = store.driver
        below, above = sorted(driver.numbers())
        driver.mounts(99, [above, below], read_only=True)
        store.remove("ns", "two")
        with pytest.raises(NotFound, match="removed"):
            driver.mounts(99, [above, below], read_only=True)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        here = [each.replace(str(tmp_path), "") for each in mounts if str(tmp_path) in each]
        assert not any(f"-{above}/" in each for each in here)
        driver.mounts(99, [below], read_only=True)
        driver.folder(below).rename(driver.snapshots / ".trash-99")  # and was killed
        again = ErofsDriver(driver.root, Sealer(forks))
        assert ".trash-99" in [path.name for path in again.trashed()]


def test_a_daemon_killed_while_it_tried_the_kernel(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
    image = next((tmp_path / "erofs/snapshots").glob(f"*/{folders.LAYER}"))
    probe = tmp_path / "erofs/.probe/layer"
    mount_image(image, probe, "erofs")
    with opened(tmp_path, forks):
        assert list(mount_points(probe)) == []


def test_an_image_that_is_not_finished_goes(tmp_path: Path, forks: ForkServer) -> None:
    """With the worker that is killed, or when the daemon starts that was killed as well."""
    unfinished = f"*/{folders.UNFINISHED}*"
    with opened(tmp_path, forks) as store:
        store.prepare("ns", "work")
        (number,) = store.driver.numbers()
        folder, root = store.driver.folder(number), store.driver.snapshots
        read, write = os.pipe()
        try:
            with start_index(forks, read, folder, limits=Limits()):
                end = time.monotonic() + patient(20)
                while not list(root.glob(unfinished)):
                    assert time.monotonic() < end
                    time.sleep(0.01)
        finally:
            os.close(read)
            os.close(write)
        assert not list(root.glob(unfinished))
        (folder / f"{folders.UNFINISHED}x").write_text("x")
    with opened(tmp_path, forks):
        assert not list(root.glob(unfinished))


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
            store.reap()  # as the next daemon does
        finally:
            subprocess.run(["chattr", "-i", content / "file"], check=True)
        assert [info.name for info in store.list("ns")] == ["done"]
        store.reap()
        assert not content.exists()


def test_a_folder_that_was_renamed_by_redirection(tmp_path: Path, forks: ForkServer) -> None:
    """What is known only after a part of the tar has gone."""
    with opened(tmp_path, forks) as store:
        _layers(store, tmp_path)
        (mount,) = store.prepare("ns", "work", "two")
        redirecting = mount._replace(options=(*mount.options, "redirect_dir=on"))
        with mounted([redirecting], tmp_path) as target:
            (target / "a").write_bytes(os.urandom((4 << 20) + 5000))
            (target / "d").rename(target / "renamed")
        store.commit("ns", "three", "work")
        with mounted(store.view("ns", "look", "three"), tmp_path) as target:
            assert sorted(path.name for path in target.iterdir()) == ["a", "renamed"]
            assert (target / "renamed/b").read_text() == "b"


def test_why_a_file_cannot_be_in_a_layer(tmp_path: Path, forks: ForkServer) -> None:
    with opened(tmp_path, forks) as store:
        with mounted(store.prepare("ns", "work"), tmp_path) as target:
            (target / "a").mkdir()
            (target / "a/large").write_bytes(os.urandom((4 << 20) + 5000))
            (target / "b").mkdir()
            (target / "b/.wh.x").write_text("x")
        with pytest.raises(InvalidArgument, match="rename it"):
            store.commit("ns", "done", "work")


def test_a_commit_outlives_a_power_cut(tmp_path: Path, forks: ForkServer) -> None:
    """The layer has its name on disk, also where the records are on another one."""
    live, cut = tmp_path / "live", tmp_path / "cut"
    live.mkdir()
    cut.mkdir()
    make = ["mkfs.ext4", "-q"]
    # So much later would the kernel have written by itself.
    with formatted(live, make, 64 << 20, "loop,commit=3000") as disk:
        database = Database(tmp_path / "meta.db")
        driver = ErofsDriver(disk / "erofs", Sealer(forks))
        store = SnapshotStore(database, SnapshotIds(database), "erofs", driver, Exchange())
        with mounted(store.prepare("ns", "work"), tmp_path) as target:
            (target / "file").write_text("written")
        store.commit("ns", "one", "work")
        shutil.copyfile(live / "image", cut / "image")
        (number,) = driver.numbers()
        layer = (driver.folder(number) / folders.LAYER).read_bytes()
        store.close()
        database.close()
    with formatted(cut, make, 64 << 20) as disk:
        folder = disk / f"erofs/snapshots/{number}"
        (image,) = (path for path in folder.iterdir() if path.name.endswith(".erofs"))
        assert image.name in (folders.SEALED, folders.LAYER)
        assert image.read_bytes() == layer
