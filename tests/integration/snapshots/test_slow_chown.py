"""Files with other owners where mounts cannot show them: a copy, made by the snapshotter."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.diff.owners import Owners
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.events import Exchange
from orlop.fork.client import ForkServer
from orlop.metadata import Database
from orlop.snapshots import Driver, NativeDriver, OverlayDriver, SnapshotIds, SnapshotStore
from orlop.sys.mount import unmount
from orlop.sys.removal import remove_tree
from tests.daemon_fixture import Orlopd, serving, serving_with
from tests.mounting import mounted
from tests.nasty_tree import deep

pytestmark = pytest.mark.root

_MAPPED = {
    "containerd.io/snapshot/uidmapping": "0:200000:1000,1000:300000:1",
    "containerd.io/snapshot/gidmapping": "0:400000:65536",
}
_NAME = "base-0-200000-1000+1000-300000-1-0-400000-65536"
_PING = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (8, 4, 7),
                  (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)  # fmt: skip


class _Overlay(OverlayDriver):
    maps_ids = False


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=[_Overlay, NativeDriver])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, forks: ForkServer
) -> Iterator[SnapshotStore]:
    make: Callable[[Path], Driver] = request.param
    database = Database(tmp_path / "meta.db")
    made = SnapshotStore(
        database, SnapshotIds(database), "here", make(tmp_path / "root"), Exchange(),
        change_owners=Owners(forks),
    )  # fmt: skip
    yield made
    made.close()
    database.close()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    remove_tree(tmp_path / "root")  # deeper than pytest can


def _base(store: SnapshotStore, root: Path) -> None:
    with mounted(store.prepare("ns", "work"), root) as target:
        for name in "bin", "home", "home/one":
            (target / name).mkdir()
        (target / "bin/su").write_text("su")
        (target / "bin/su").chmod(0o6755)
        (target / "bin/ping").write_text("ping")
        os.setxattr(target / "bin/ping", "security.capability", _PING)
        (target / "home/one/mine").write_text("mine")
        os.setxattr(target / "home/one/mine", "system.posix_acl_access", _ACL)
        for name in "bin/other", "home/one/other":
            os.link(target / "home/one/mine", target / name)
        os.chown(target / "home/one/mine", 1000, 50)
        os.chown(target / "home/one", 1000, 50)
        (target / "link").symlink_to("/etc/passwd")
        os.mknod(target / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        deep(target / "deep", 1200)
        os.utime(target / "bin", ns=(1_000_000_000, 2_000_000_000))
    store.commit("ns", "base", "work")


def _owner(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_uid, info.st_gid


def test_all_but_the_owners_stays(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    host = Path("/etc/passwd").stat().st_ctime_ns  # which an owner's change is
    with mounted(store.prepare("ns", "one", "base", _MAPPED), tmp_path) as target:
        assert _owner(target) == (200_000, 400_000)
        mine = target / "home/one/mine"
        assert _owner(mine) == _owner(mine.parent) == (300_000, 400_050)
        assert os.getxattr(mine, "system.posix_acl_access") == _ACL.replace(
            struct.pack("<HHI", 2, 4, 1000), struct.pack("<HHI", 2, 4, 300_000)
        ).replace(struct.pack("<HHI", 8, 4, 7), struct.pack("<HHI", 8, 4, 400_007))
        same = {(target / name).stat().st_ino for name in ("bin/other", "home/one/other")}
        assert same == {mine.stat().st_ino}
        assert (mine.stat().st_nlink, mine.read_text()) == (3, "mine")
        su = (target / "bin/su").stat()
        assert (stat.S_IMODE(su.st_mode), su.st_uid) == (0o6755, 200_000)
        assert os.getxattr(target / "bin/ping", "security.capability") == (
            struct.pack("<I", 0x03000001) + _PING[4:] + struct.pack("<I", 200_000)
        )
        assert (target / "bin").stat().st_mtime_ns == 2_000_000_000
        assert (target / "null").stat().st_rdev == os.makedev(1, 3)
        assert _owner(target / "link") == _owner(target / "null") == (200_000, 400_000)
        owners = subprocess.check_output(["find", target, "-printf", "%U %G\n"]).split(b"\n")
        assert set(owners) == {b"200000 400000", b"300000 400050", b""}
    assert Path("/etc/passwd").stat().st_ctime_ns == host
    with mounted(store.view("ns", "plain", "base"), tmp_path) as target:
        assert _owner(target / "home/one/mine") == (1000, 50)
        assert os.getxattr(target / "bin/ping", "security.capability") == _PING


def test_one_copy_for_all(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    threads = [
        threading.Thread(target=store.prepare, args=("ns", f"t{n}", "base", _MAPPED))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.view("ns", "look", "base", _MAPPED)
    infos = {info.name: info for info in store.list("ns")}
    assert set(infos) == {"base", _NAME, "t0", "t1", "t2", "t3", "look"}
    assert {infos[name].parent for name in ("t0", "t3", "look")} == {_NAME}
    assert infos[_NAME].labels == {"containerd.io/gc.bref.snapshot.here": "base"}
    assert not [each for each in store.mounts("ns", "t0")[0].options if "map=" in each]
    # A client that has made the copy itself gives the labels as well.
    store.prepare("ns", "client", _NAME, _MAPPED)
    assert store.stat("ns", "client").parent == _NAME
    store.driver.maps_ids = True  # a newer kernel: what is copied is not mapped as well
    for mounts in store.mounts("ns", "t0"), store.prepare("ns", "later", _NAME, _MAPPED):
        assert not [each for each in mounts[0].options if "map=" in each]
    store.driver.maps_ids = False
    store.prepare("ns", "empty", "", _MAPPED)
    with mounted(store.mounts("ns", "empty"), tmp_path) as target:
        assert _owner(target) == (200_000, 400_000)


def test_what_is_not_mapped(store: SnapshotStore, tmp_path: Path) -> None:
    _base(store, tmp_path)
    few = dict.fromkeys(_MAPPED, "0:200000:60")
    with pytest.raises(InvalidArgument, match="files of id 1000, which is not mapped"):
        store.prepare("ns", "one", "base", few)
    assert [info.name for info in store.list("ns")] == ["base"]


def test_where_it_is_not_wanted(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    driver = _Overlay(tmp_path / "root")
    store = SnapshotStore(database, SnapshotIds(database), "here", driver, Exchange())
    assert store.capabilities == ("only-remap-ids",)
    _base(store, tmp_path)
    with pytest.raises(FailedPrecondition, match="slow_chown"):
        store.prepare("ns", "one", "base", _MAPPED)
    store.close()
    database.close()
    remove_tree(driver.root)


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text("[snapshots]\nslow_chown = true\n")
    return ["--config", str(path)]


_SCRIPT = "id -u; stat -c '%u %g' /bin/busybox /home/sailor; touch /made && echo well"


def test_containers_of_a_filesystem_that_cannot(
    tmp_path: Path, config: list[str], busybox_archive: Path
) -> None:
    """ramfs knows no mapped ids (nor attributes)."""
    disk = tmp_path / "ramfs"
    disk.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", disk], check=True)
    try:
        daemon = Orlopd(config)
        daemon.root = disk / "root"
        for each in serving_with(daemon):
            _run(each, "overlayfs", busybox_archive)
    finally:
        unmount(disk)


def test_containers_of_a_snapshotter_that_cannot(config: list[str], busybox_archive: Path) -> None:
    for daemon in serving(config):
        _run(daemon, "native", busybox_archive)
        with daemon.connect() as connection:
            from orlop.wire.services.introspection_pb2 import PluginsRequest

            found = connection.introspection.plugins(PluginsRequest(filters=["id==native"]))
            assert list(found.plugins[0].capabilities) == ["remap-ids"]


def _run(daemon: Orlopd, snapshotter: str, archive: Path) -> None:
    daemon.folder.chmod(0o711)  # nobody has to get to the container's root by its path
    by = ("--snapshotter", snapshotter)
    image = daemon.ctr("images", "import", *by, str(archive)).stdout.split()[1]
    for _ in range(2):
        ran = daemon.orlop(
            "run", "--rm", *by, "--userns", "200000:65536", image, "sh", "-c", _SCRIPT
        )
        assert ran.stdout.split() == ["0", "0", "0", "1000", "1000", "well"]
    assert daemon.ctr("snapshots", *by, "ls").stdout.count("-0-200000-65536-0-200000-65536") == 1
    daemon.orlop("rmi", image)
    daemon.wait_for(lambda: daemon.ctr("snapshots", *by, "ls").stdout.count("\n") == 1)
