"""Containers whose files need not survive a stop of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orlop.errors import InvalidArgument
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.snapshots import OverlayDriver, SnapshotIds, SnapshotStore
from orlop.snapshots.quota import UNLIMITED
from orlop.snapshots.store import Defaults
from tests.daemon_fixture import Orlopd, serving

pytestmark = pytest.mark.root

_OPTIONS = "sh", "-c", "echo x >> /made; sync; cat /made; grep ' / ' /proc/mounts"


def _notes(daemon: Orlopd) -> list[Path]:
    return list(daemon.root.glob("snapshots/*/snapshots/*/volatile"))


def _stop_machine(daemon: Orlopd) -> None:
    """As far as the folder can tell."""
    (note,) = _notes(daemon)
    note.write_text("00000000-0000-0000-0000-000000000000\n")


@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs"])
def test_a_volatile_container(orlopd: Orlopd, busybox: str, snapshotter: str) -> None:
    by = ("--snapshotter", snapshotter)
    made = orlopd.orlop(
        "run", "--name", "one", *by, "--storage-opt", "volatile", busybox, *_OPTIONS
    )
    assert "volatile" in made.stdout
    assert (_notes(orlopd)[0].parent / "work/work/incompat/volatile").exists()
    # It starts again, whatever looks at it in between.
    orlopd.orlop("start", "one")
    orlopd.orlop("wait", "one")
    assert orlopd.orlop("cp", "one:/made", "-", check=False).returncode == 0
    assert "A /made" in orlopd.orlop("diff", "one").stdout
    orlopd.restart()
    orlopd.orlop("start", "one")
    orlopd.orlop("wait", "one")
    assert orlopd.orlop("logs", "one").stdout.count("x\n") == 1 + 2 + 3
    orlopd.orlop("commit", "one", "test/kept:1")
    kept = orlopd.orlop("run", "--rm", *by, "test/kept:1", "cat", "/made").stdout
    assert kept == "x\n" * 3
    _stop_machine(orlopd)
    for command in ("start", "one"), ("commit", "one", "test/kept:2"), ("cp", "one:/made", "-"):
        refused = orlopd.orlop(*command, check=False)
        assert refused.returncode
        assert "is volatile and from before this machine started" in refused.stderr
    refused = orlopd.ctr("snapshots", *by, "commit", "mine", _key(orlopd, *by), check=False)
    assert "is volatile and from before" in refused.stderr
    orlopd.orlop("rm", "one")
    orlopd.orlop("rmi", "test/kept:1")


def _key(daemon: Orlopd, *by: str) -> str:
    listed = daemon.ctr("snapshots", *by, "ls").stdout.splitlines()
    (key,) = (line.split()[0] for line in listed if line.endswith("Active") or " Active" in line)
    return key


@pytest.mark.fresh
def test_a_commit_takes_all(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "--name", "one", "--storage-opt", "volatile=true", busybox, *_OPTIONS)
    key = _key(orlopd)
    orlopd.ctr("snapshots", "commit", "mine", key)
    orlopd.ctr("containers", "rm", "--keep-snapshot", key)
    mounts = orlopd.ctr("snapshots", "prepare", "--mounts", "next", "mine").stdout
    assert "volatile" not in mounts
    for name in "next", "mine":
        orlopd.ctr("snapshots", "rm", name)


@pytest.fixture
def by_default(tmp_path: Path) -> Iterator[Orlopd]:
    config = tmp_path / "config.toml"
    config.write_text("[snapshots]\nvolatile = true\n")
    yield from serving(["--config", str(config)])


def test_the_default_is_for_containers(by_default: Orlopd, busybox_archive: Path) -> None:
    image = by_default.ctr("images", "import", str(busybox_archive)).stdout.split()[1]
    assert not _notes(by_default)
    assert "volatile" in by_default.ctr("run", image, "one", *_OPTIONS).stdout
    again = by_default.ctr("task", "start", "one").stdout
    assert "volatile" in again
    plain = by_default.orlop("run", "--storage-opt", "volatile=false", "--rm", image, *_OPTIONS)
    assert "volatile" not in plain.stdout
    refused = by_default.orlop("run", "--storage-opt", "volatile=yes", image, "true", check=False)
    assert "neither true nor false" in refused.stderr
    by_default.ctr("containers", "rm", "one")
    by_default.orlop("rmi", image)


def test_a_default_is_not_for_layers(tmp_path: Path) -> None:
    """Nor for those of a guest, whose keys have a way before them."""
    database = Database(tmp_path / "meta.db")
    defaults = Defaults(UNLIMITED, volatile=True)
    driver = OverlayDriver(tmp_path / "root")
    store = SnapshotStore(database, SnapshotIds(database), "here", driver, Exchange(), defaults)
    with closing(database), closing(store):
        store.prepare("ns", "below", "")
        store.commit("ns", "base", "below")
        for key, expected in (("work", True), ("extract-1 x", False), ("k8s/7/extract-1 x", False)):
            (mount,) = store.prepare("ns", key, "base")
            assert ("volatile" in mount.options) == expected, key


def test_a_view_whose_root_is_not_mapped(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    driver = OverlayDriver(tmp_path / "root")
    store = SnapshotStore(database, SnapshotIds(database), "here", driver, Exchange())
    kinds = ("uidmapping", "gidmapping")
    with closing(database), closing(store):
        store.prepare("ns", "below", "")
        store.commit("ns", "base", "below")
        wanted = {f"containerd.io/snapshot/{kind}": "1000:2000:1" for kind in kinds}
        (mount,) = store.view("ns", "look", "base", wanted)
        assert {"uidmap=1000:2000:1", "gidmap=1000:2000:1"} <= set(mount.options)
        assert store.mounts("ns", "look") == [mount]
        wanted["containerd.io/snapshot/uidmapping"] = "0:4294967290:6"
        with pytest.raises(InvalidArgument, match="goes beyond 4294967294"):
            store.view("ns", "other", "base", wanted)
