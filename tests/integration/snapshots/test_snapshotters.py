"""The suite that every snapshotter passes, with real mounts."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.diff.apply import Limits, start_index
from orlop.diff.sealing import Sealer
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.rpc import CallContext
from orlop.snapshots import (
    BtrfsDriver,
    Driver,
    ErofsDriver,
    Extraction,
    Info,
    Kind,
    NativeDriver,
    OverlayDriver,
    SnapshotIds,
    SnapshotStore,
)
from orlop.snapshots.model import Usage
from orlop.snapshots.service import SnapshotsService
from orlop.sys import overlay
from orlop.sys.mount import Mount, mount_all, unmount, unmount_all
from orlop.wire.services import snapshots_pb2 as pb
from tests.disks import formatted, make_image
from tests.layer_fixture import layer, member
from tests.mounting import mounted
from tests.nasty_tree import ACCESS, DEFAULT, acl, deep

pytestmark = pytest.mark.root

DRIVERS: dict[str, Callable[[Path, ForkServer], Driver]] = {
    "overlayfs": lambda root, _: OverlayDriver(root),
    "erofs": lambda root, forks: ErofsDriver(root, Sealer(forks)),
    "btrfs": lambda root, _: BtrfsDriver(root),
    "native": lambda root, _: NativeDriver(root),
}


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def disk_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """A disk of each kind, made when it is first asked for."""
    with ExitStack() as disks:

        @cache
        def disk(kind: str) -> Path:
            folder = tmp_path_factory.mktemp(kind)
            return disks.enter_context(formatted(folder, [f"mkfs.{kind}", "-q"], 512 << 20))

        yield disk


@pytest.fixture(
    params=[*product(("overlayfs", "erofs", "native"), ("ext4", "xfs")), ("btrfs", "btrfs")],
    ids="-".join,
)
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    disk_of: Callable[[str], Path],
    forks: ForkServer,
) -> Iterator[SnapshotStore]:
    """Of each kind, on each kind of disk that it is for."""
    name, kind = request.param
    root = tmp_path if name == "btrfs" else Path(tempfile.mkdtemp(dir=disk_of(kind)))
    yield from _open(name, root, forks)
    assert str(root) not in Path("/proc/self/mountinfo").read_text()


def _open(name: str, root: Path, forks: ForkServer) -> Iterator[SnapshotStore]:
    with _btrfs(root) if name == "btrfs" else nullcontext():
        yield from _open_store(name, root, forks)


@contextmanager
def _btrfs(root: Path) -> Iterator[None]:
    """A disk of that kind as `root/btrfs`, the same one again for the same root."""
    disk, target = root / "disk", root / "btrfs"
    if not disk.exists():
        make_image(disk, ["mkfs.btrfs", "-q"], 200 << 20)
        target.mkdir()
    subprocess.run(["mount", "-o", "loop", str(disk), str(target)], check=True)
    try:
        yield
    finally:
        unmount(target)


def _open_store(name: str, root: Path, forks: ForkServer) -> Iterator[SnapshotStore]:
    database = Database(root / "meta.db")
    driver = DRIVERS[name](root / name, forks)
    made = SnapshotStore(database, SnapshotIds(database), name, driver, Exchange())
    made.reap()
    yield made
    made.close()
    database.close()


def _base(store: SnapshotStore, root: Path, name: str = "base") -> None:
    with mounted(store.prepare("ns", f"{name}-work"), root) as target:
        (target / "etc").mkdir()
        (target / "etc/a").write_text("a")
        (target / "etc/b").write_text("b")
        os.link(target / "etc/a", target / "etc/hard")
        os.mknod(target / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.setxattr(target / "etc/a", "user.flag", b"jolly")
        os.setxattr(target / "etc/a", ACCESS, acl(1000, 6))
        os.setxattr(target / "etc", DEFAULT, acl(1000, 7))
    store.commit("ns", name, f"{name}-work")


def test_layers_stack(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    with mounted(store.prepare("ns", "work", "base"), tmp_path) as target:
        assert (target / "etc/a").read_text() == "a"
        assert os.getxattr(target / "etc/a", "user.flag") == b"jolly"
        assert os.getxattr(target / "etc/a", ACCESS) == acl(1000, 6)
        assert os.getxattr(target / "etc", DEFAULT) == acl(1000, 7)
        assert (target / "etc/hard").stat().st_ino == (target / "etc/a").stat().st_ino
        assert stat.S_ISCHR((target / "null").stat().st_mode)
        (target / "etc/a").write_text("changed")
        (target / "etc/b").unlink()
        (target / "new").write_text("new")
    store.commit("ns", "second", "work")
    with mounted(store.view("ns", "look", "second"), tmp_path) as target:
        assert (target / "etc/a").read_text() == "changed"
        assert not (target / "etc/b").exists()
        assert (target / "new").read_text() == "new"
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").write_text("x")
    with mounted(store.view("ns", "look-base", "base"), tmp_path) as target:
        assert (target / "etc/a").read_text() == "a"


def test_an_active_snapshot_keeps_what_was_written(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    with mounted(store.prepare("ns", "work", "base"), tmp_path) as target:
        (target / "kept").write_text("kept")
    with mounted(store.mounts("ns", "work"), tmp_path) as target:
        assert (target / "kept").read_text() == "kept"


def test_kinds_and_parents(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    store.prepare("ns", "work", "base", {"a": "1"})
    store.view("ns", "look", "base")
    infos = {info.name: info for info in store.list("ns")}
    assert {name: info.kind for name, info in infos.items()} == {
        "base": Kind.COMMITTED,
        "work": Kind.ACTIVE,
        "look": Kind.VIEW,
    }
    assert infos["work"].parent == "base"
    assert infos["work"].labels == {"a": "1"}
    assert [i.name for i in store.list("ns", ["kind==active"])] == ["work"]
    assert [i.name for i in store.list("ns", ["parent==base", "name==base"])] == [
        "base",
        "look",
        "work",
    ]
    assert store.list("other") == []


def test_errors_of_prepare(store: SnapshotStore) -> None:
    store.prepare("ns", "work")
    with pytest.raises(AlreadyExists):
        store.prepare("ns", "work")
    with pytest.raises(NotFound, match='"nobody"'):
        store.prepare("ns", "x", "nobody")
    with pytest.raises(InvalidArgument):
        store.prepare("ns", "x", "work")
    with pytest.raises(InvalidArgument):
        store.prepare("ns", "")
    with pytest.raises(AlreadyExists):
        store.prepare("ns", "y", labels={"containerd.io/snapshot.ref": "work"})
    store.prepare("other", "work")
    assert len(store.driver.numbers()) == 2


def test_a_key_that_has_just_gone_can_be_used(
    store: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _base(store, tmp_path)
    real, seen = store._taken, []

    def taken(*args: Any) -> list[str]:
        seen.append(args)
        return ["key"] if len(seen) == 1 else real(*args)

    monkeypatch.setattr(store, "_taken", taken)
    store.prepare("ns", "key", "base")
    assert len(seen) == 2
    assert store.stat("ns", "key").parent == "base"


def test_errors_of_commit_and_mounts(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    store.prepare("ns", "work", "base")
    store.view("ns", "look", "base")
    with pytest.raises(AlreadyExists):
        store.commit("ns", "base", "work")
    with pytest.raises(NotFound):
        store.commit("ns", "x", "nobody")
    with pytest.raises(FailedPrecondition):
        store.commit("ns", "x", "look")
    with pytest.raises(FailedPrecondition):
        store.commit("ns", "x", "base")
    with pytest.raises(FailedPrecondition):
        store.mounts("ns", "base")
    with pytest.raises(NotFound):
        store.mounts("ns", "nobody")


def test_commit_takes_its_own_labels(store: SnapshotStore) -> None:
    store.prepare("ns", "work", labels={"old": "1"})
    store.commit("ns", "done", "work", {"new": "2"})
    assert store.stat("ns", "done").labels == {"new": "2"}
    with pytest.raises(NotFound):
        store.stat("ns", "work")


def test_update_changes_labels_only(store: SnapshotStore) -> None:
    store.prepare("ns", "work", labels={"a": "1", "b.c/d": "2"})
    wanted = Info("work", "", Kind.ACTIVE, 0, 0, {"b.c/d": "3"})
    info = store.update("ns", wanted, FieldMask(paths=["labels.b.c/d"]))
    assert info.labels == {"a": "1", "b.c/d": "3"}
    assert store.update("ns", wanted, FieldMask()).labels == {"b.c/d": "3"}
    with pytest.raises(InvalidArgument):
        store.update("ns", wanted, FieldMask(paths=["parent"]))


def test_remove(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    store.prepare("ns", "work", "base")
    with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child"):
        store.remove("ns", "base")
    store.remove("ns", "work")
    store.remove("ns", "base")
    with pytest.raises(NotFound):
        store.remove("ns", "base")
    store.close()
    assert list(store.driver.snapshots.iterdir()) == []


def test_usage_counts_links_once(store: SnapshotStore, tmp_path: Path) -> None:
    with mounted(store.prepare("ns", "work"), tmp_path) as target:
        (target / "big").write_bytes(os.urandom(1 << 20))
        os.link(target / "big", target / "again")
    live = store.usage("ns", "work")
    assert live.inodes == 2
    assert 1 << 20 <= live.size < 1 << 21
    store.commit("ns", "done", "work")
    done = store.usage("ns", "done")
    if store.driver.images:
        assert done.inodes == 1
        assert 1 << 20 <= done.size < 1 << 21
    else:
        assert done == live


def test_leases_hold_what_is_there(store: SnapshotStore) -> None:
    with store._database.write() as tx:
        tx.execute("INSERT INTO namespaces VALUES ('ns')")
        tx.execute("INSERT INTO leases VALUES ('ns', 'held', 1)")

    def held() -> set[str]:
        with store._database.read() as tx:
            return {row["id"] for row in tx.all("SELECT id FROM lease_resources")}

    store.prepare("ns", "work", lease="held")
    assert held() == {"work"}
    store.commit("ns", "done", "work", lease="held")
    assert held() == {"done"}
    store.prepare("ns", "late")
    with store._database.write() as tx:
        tx.execute("DELETE FROM lease_resources")
    with pytest.raises(AlreadyExists):
        store.commit("ns", "done", "late", lease="held")
    assert held() == {"done"}
    if store.rebase:
        with store._database.write() as tx:
            tx.execute("DELETE FROM lease_resources")
        with pytest.raises(AlreadyExists):
            store.extraction("ns").commit("done", "", lease="held")
        assert held() == {"done"}
    store.remove("ns", "late")
    with pytest.raises(NotFound, match="lease"):
        store.prepare("ns", "other", lease="none")
    assert len(store.driver.numbers()) == 1


def test_many_threads(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    failures: list[Exception] = []

    def work(name: str) -> None:
        try:
            for number in range(10):
                store.prepare("ns", f"{name}-{number}", "base")
                store.remove("ns", f"{name}-{number}")
        except Exception as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [info.name for info in store.list("ns")] == ["base"]


@pytest.mark.parametrize("name", DRIVERS)
def test_a_crash_leaves_nothing(name: str, tmp_path: Path, forks: ForkServer) -> None:
    opened = _open(name, tmp_path, forks)
    store = next(opened)
    store.prepare("ns", "kept")
    store.driver.create(900, (), read_only=False)  # died before the row
    store.driver.create(901, (), read_only=False)
    store.driver.trash(901)  # died while deleting
    next(opened, None)
    opened = _open(name, tmp_path, forks)
    store = next(opened)
    assert store._ids.next() > 900
    store.close()
    assert [path.name for path in store.driver.snapshots.iterdir()] == ["1"]
    next(opened, None)


def fill(extraction: Extraction, name: str, forks: ForkServer) -> None:
    """Unpack a layer of one file into it."""
    if not extraction.image:
        (extraction.path / name).write_text("x")
        return
    with tempfile.TemporaryFile() as tar:
        tar.write(layer(member(name, b"x")))
        tar.flush()
        tar.seek(0)
        with start_index(forks, tar.fileno(), extraction.path, limits=Limits()) as indexing:
            indexing.result()


def test_extraction(store: SnapshotStore, tmp_path: Path, forks: ForkServer) -> None:
    if not store.rebase:
        with pytest.raises(Unimplemented):
            store.extraction("ns")
        return
    _base(store, tmp_path)
    first = store.extraction("ns")
    fill(first, "from-layer", forks)
    first.commit("chain", "base", {"l": "1"})
    with mounted(store.view("ns", "look", "chain"), tmp_path) as target:
        assert (target / "etc/a").exists()
        assert (target / "from-layer").exists()
    late = store.extraction("ns")
    with pytest.raises(AlreadyExists):
        late.commit("chain", "base")
    assert not late.path.exists()
    lost = store.extraction("ns")
    lost.discard()
    assert not lost.path.exists()


@pytest.mark.parametrize(
    ("name", "new_api"), [("overlayfs", True), ("overlayfs", False), ("erofs", True)]
)
@pytest.mark.slow
def test_two_hundred_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, new_api: bool, forks: ForkServer
) -> None:
    if not new_api:  # as on a kernel before 6.7
        monkeypatch.setattr(overlay, "_configure", lambda *_: False)
    opened = _open(name, tmp_path / ("deep" * (20 if new_api else 12)), forks)
    store = next(opened)
    parent = ""
    for number in range(200):
        extraction = store.extraction("ns")
        fill(extraction, f"f{number}", forks)
        extraction.commit(f"layer{number}", parent)
        parent = f"layer{number}"
    with mounted(store.prepare("ns", "top", parent), tmp_path) as target:
        assert len(list(target.iterdir())) == 200
    next(opened, None)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_unmount_all_takes_what_is_below(tmp_path: Path) -> None:
    target = tmp_path / "m"
    target.mkdir()
    tmpfs = Mount("tmpfs", "tmpfs")
    mount_all([tmpfs], target)
    (target / "sub dir").mkdir()
    mount_all([tmpfs, tmpfs], target / "sub dir")
    unmount_all(target)
    assert str(target) not in Path("/proc/self/mountinfo").read_text()


def test_a_folder_that_cannot_be_moved(store: SnapshotStore) -> None:
    """What was removed is gone, and the daemon starts; the folder goes when it can."""
    store.prepare("ns", "one")
    (number,) = store.driver.numbers()
    folder = store.driver.folder(number)
    subprocess.run(["chattr", "+i", folder], check=True)
    try:
        store.remove("ns", "one")
        assert store.list("ns") == []
        store.reap()
        assert store.driver.numbers() == {number}
        assert list(store.stuck()) == [folder]
        with pytest.raises(FailedPrecondition, match=f'cannot delete "{folder}"'):
            store.cleanup()
        with pytest.raises(FailedPrecondition, match="cannot be deleted"):
            store.remove_orphan(number)
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)
    store.cleanup()
    assert store.driver.numbers() == set() == set(store.stuck())
    assert store.driver.trashed() == []


def test_what_cannot_be_deleted_is_tried_again(store: SnapshotStore) -> None:
    """Cleanup waits for what is being deleted, and tells what stays."""
    store.prepare("ns", "one")
    store.prepare("ns", "two")
    (first, second) = (store.driver.folder(number) for number in sorted(store.driver.numbers()))
    pinned = first / "pinned"
    pinned.touch()
    subprocess.run(["chattr", "+i", pinned], check=True)
    trash = first.with_name(f".trash-{first.name}")
    service = SnapshotsService({store.name: store}, store.name)
    request, call = pb.CleanupRequest(snapshotter=store.name), CallContext(namespace="ns")
    try:
        store.remove("ns", "one")
        store.remove("ns", "two")
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match=f'cannot delete "{trash}"'):
                service.cleanup(request, call)
            assert store.driver.trashed() == [trash] == list(store.stuck())
            assert store.undeleted() == 1
        assert not second.exists()
    finally:
        subprocess.run(["chattr", "-i", trash / "pinned"], check=True)
    service.cleanup(request, call)
    assert store.driver.trashed() == [] and not store.stuck()
    assert store.undeleted() == 0


def test_deep_folders_are_deleted(store: SnapshotStore, tmp_path: Path) -> None:
    """What containers make must not end the deletion of what others have made."""
    with mounted(store.prepare("ns", "deep"), tmp_path) as target:
        deep(target / "tree", 1500)
    store.remove("ns", "deep")
    store.prepare("ns", "next")
    store.remove("ns", "next")
    store.close()
    assert list(store.driver.snapshots.iterdir()) == []


def test_a_list_of_all_is_the_list_of_those_that_match(store: SnapshotStore) -> None:
    service = SnapshotsService({"it": store}, "it")
    store.prepare("ns", "base", labels={"ö": "ß" * 300})
    store.commit("ns", "committed", "base", {"k": "v", "l": "w"})
    store.prepare("ns", "on it", "committed")
    store.view("ns", "seen", "committed", {"k": "v"})
    store.prepare("other", "foreign")

    def listed(*filters: str) -> list[pb.Info]:
        request = pb.ListSnapshotsRequest(filters=filters)
        answers = service.list(request, CallContext(namespace="ns"))
        read = (pb.ListSnapshotsResponse.FromString(each.SerializeToString()) for each in answers)
        return [info for answer in read for info in answer.info]

    everything = listed("")
    assert [(info.name, info.parent) for info in everything] == [
        ("committed", ""), ("on it", "committed"), ("seen", "committed"),
    ]  # fmt: skip
    assert listed() == everything


def test_a_key_that_is_used_again_while_it_is_committed(
    store: SnapshotStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed that was not sealed."""
    store.prepare("ns", "work")
    seal = store.driver.seal

    def late(number: int, parents: Sequence[int]) -> Usage:
        usage = seal(number, parents)
        store.remove("ns", "work")
        store.prepare("ns", "work")
        return usage

    monkeypatch.setattr(store.driver, "seal", late)
    with pytest.raises(NotFound, match='snapshot "work"'):
        store.commit("ns", "done", "work")
    assert [(info.name, info.kind) for info in store.list("ns")] == [("work", Kind.ACTIVE)]


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_unpacked_is_synced_unless_that_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("orlop.snapshots.store.sync_filesystem", synced.append)
    database, driver = Database(tmp_path / "meta.db"), NativeDriver(tmp_path / "native")
    ids = SnapshotIds(database)
    store = SnapshotStore(database, ids, "native", driver, Exchange(), durable=durable)
    store.sync()
    store.close()
    database.close()
    assert synced == ([str(driver.snapshots)] if durable else [])


def test_a_mount_in_another_is_not_led_out_by_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, outside, root / "inside", tmp_path / "data"):
        folder.mkdir()
    (tmp_path / "data/file").touch()
    (root / "link").symlink_to(outside)
    (root / "abs").symlink_to("/inside")
    data = str(tmp_path / "data")
    with pytest.raises(OSError, match="link"):
        mount_all([Mount("bind", data, "/link", ("rbind",))], root)
    assert list(outside.iterdir()) == []
    mount_all([Mount("bind", data, "/abs", ("rbind",))], root)
    try:
        assert (root / "inside/file").exists()
    finally:
        unmount(root / "inside")
    with pytest.raises(InvalidArgument, match="leads out"):
        mount_all([Mount("bind", data, "/../outside", ("rbind",))], root)
