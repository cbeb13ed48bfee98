"""Debian's ctr with every snapshotter, all that it can do with images and snapshots.

The same is done with Debian's containerd, where that has the snapshotter: so the test is right.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.client import leases
from orlop.sys.mount import unmount
from orlop.wire.services import leases_pb2
from tests.compat.clients.peer import Peer
from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd, serving_with
from tests.disks import btrfs

pytestmark = pytest.mark.root

Daemon = Orlopd | Containerd
PROXIES = ("overlayfs", "erofs")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """On which all of them work."""
    with btrfs(tmp_path_factory.mktemp("disk"), 500 << 20) as path:
        yield path


@pytest.fixture(scope="module")
def back(disk: Path) -> Iterator[Orlopd]:
    daemon = _configured(Orlopd(), '[snapshots]\nserve = "{folder}/guests.sock"\n')
    daemon.root = disk / "orlopd"
    yield from serving_with(daemon)


@pytest.fixture(scope="module")
def front(back: Orlopd) -> Iterator[Orlopd]:
    """One that has the other's snapshotters, as proxies."""
    plugin = '[proxy_plugins."orlop-{0}"]\ntype = "snapshot"\naddress = "{1}/guests.sock"\n'
    text = "".join(plugin.format(name, back.folder) for name in PROXIES)
    yield from serving_with(_configured(Orlopd(), text))


@pytest.fixture(scope="module")
def theirs(disk: Path) -> Iterator[Containerd]:
    folder = disk / "containerd"
    folder.mkdir()
    with run_containerd(folder) as daemon:
        yield daemon


def _configured(daemon: Orlopd, text: str) -> Orlopd:
    config = daemon.folder / "config.toml"
    config.write_text(text.replace("{folder}", str(daemon.folder)))
    daemon.options += ["--config", str(config)]
    return daemon


@pytest.fixture(
    params=[
        *(("back", name) for name in ("overlayfs", "native", "erofs", "btrfs")),
        *(("front", f"orlop-{name}") for name in PROXIES),
        *(("theirs", name) for name in ("overlayfs", "native", "btrfs")),
    ],
    ids="-".join,
)
def ship(
    request: pytest.FixtureRequest, busybox_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ship]:
    """A daemon's snapshotter with an image that is not unpacked yet."""
    daemon, snapshotter = request.param
    ship = Ship(request.getfixturevalue(daemon), snapshotter)
    monkeypatch.setenv("CONTAINERD_SNAPSHOTTER", snapshotter)  # some commands have no option
    ship.ctr("images", "import", "--no-unpack", str(busybox_archive))
    yield ship
    ship.ctr("images", "rm", "--sync", BUSYBOX)
    assert ship.keys() == []


class Ship:
    """ctr with a daemon and one of its snapshotters."""

    def __init__(self, daemon: Daemon, snapshotter: str) -> None:
        self._daemon = daemon
        self.by = ("--snapshotter", snapshotter)
        self.snapshotter = snapshotter

    def ctr(self, *arguments: str, check: bool = True) -> str:
        done = self._daemon.ctr(*arguments, check=check)
        return done.stdout + ("" if check else done.stderr)

    def snapshots(self, *arguments: str, check: bool = True) -> str:
        return self.ctr("snapshots", *self.by, *arguments, check=check)

    def keys(self) -> list[str]:
        return [line.split()[0] for line in self.snapshots("ls").splitlines()[1:]]

    def connect(self) -> Peer:
        return Peer(self._daemon.address, self._daemon.namespace)

    def manifest(self) -> str:
        (digest,) = [
            word for word in self.ctr("images", "ls").split() if word.startswith("sha256:")
        ]
        return digest

    def unpack(self) -> str:
        """The key of the image's only layer."""
        self.snapshots("unpack", self.manifest())
        (key,) = self.keys()
        return key

    @contextmanager
    def shown(self, key: str, target: Path) -> Iterator[Path]:
        """A snapshot, mounted by the commands that ctr prints."""
        target.mkdir(exist_ok=True)
        subprocess.run(["sh", "-ec", self.snapshots("mounts", str(target), key)], check=True)
        try:
            yield target
        finally:
            unmount(target)

    def layer(self, *arguments: str) -> list[str]:
        """The names in what `snapshots diff` prints."""
        command = self._daemon.ctr_command("snapshots", *self.by, "diff", *arguments)
        data = subprocess.run(command, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            return archive.getnames()


def test_unpacked_by_hand_and_run(ship: Ship) -> None:
    assert "false" in ship.ctr("images", "check", *ship.by)
    key = ship.unpack()
    assert "true" in ship.ctr("images", "check", *ship.by)
    info = json.loads(ship.snapshots("info", key))
    assert (info["Kind"], info["Name"]) == ("Committed", key)
    assert _size(ship, key) > 100_000
    run = ("run", "--rm", *ship.by, BUSYBOX, "job", "sh", "-c")
    assert ship.ctr(*run, "echo x > /made && cat /made") == "x\n"
    assert ship.keys() == [key]


def _size(ship: Ship, key: str) -> int:
    row = next(
        line for line in ship.snapshots("usage", "-b", key).splitlines() if line.startswith(key)
    )
    return int(row.split()[1])


def test_an_image_is_mounted(ship: Ship, tmp_path: Path) -> None:
    key = ship.unpack()
    for options in ((), ("--rw",)):
        target = tmp_path / "".join(("shown", *options))
        target.mkdir()
        ship.ctr("images", "mount", *ship.by, *options, BUSYBOX, str(target))
        try:
            assert (target / "bin/busybox").exists()
            if options:
                (target / "made").write_text("x")
            else:
                with pytest.raises(OSError, match="Read-only"):
                    (target / "made").write_text("x")
        finally:
            ship.ctr("images", "unmount", "--rm", str(target))
        assert not any(target.iterdir())
    assert ship.keys() == [key]


def test_from_prepare_to_rm(ship: Ship, tmp_path: Path) -> None:
    parent = ship.unpack()
    ship.snapshots("prepare", "work", parent)
    assert json.loads(ship.snapshots("info", "work"))["Parent"] == parent
    with ship.shown("work", tmp_path / "work") as target:
        (target / "made").write_bytes(b"x" * 50_000)
        (target / "bin/busybox").chmod(0o700)
        assert "made" in ship.layer("work")
    assert _size(ship, "work") >= 50_000
    ship.snapshots("commit", "done", "work")
    ship.snapshots("label", "done", "port=lisbon", "containerd.io/gc.root=yes")
    assert json.loads(ship.snapshots("info", "done"))["Labels"]["port"] == "lisbon"
    ship.snapshots("prepare", "next", "done")
    with ship.shown("next", tmp_path / "next") as target:
        assert (target / "made").read_bytes() == b"x" * 50_000
        assert (target / "bin/busybox").stat().st_mode & 0o777 == 0o700
        (target / "made").unlink()
    assert {name.removeprefix("./") for name in ship.layer("done", "next")} >= {".wh.made"}
    lines = ship.snapshots("tree").splitlines()
    assert [line.strip("\\_ ") for line in lines] == [parent, "done", "next"]
    refused = ship.snapshots("rm", "done", check=False)
    assert "cannot remove snapshot with child" in refused
    ship.snapshots("rm", "next")
    ship.snapshots("rm", "done")
    assert "not found" in ship.snapshots("info", "done", check=False)
    assert ship.keys() == [parent]


def test_a_view_and_a_lease(ship: Ship, tmp_path: Path) -> None:
    """What a lease holds stays when its image goes, and goes with the lease."""
    parent = ship.unpack()
    assert ship.ctr("leases", "create", "--id", "hold", "for=test").strip() == "hold"
    assert "for=test" in ship.ctr("leases", "ls")
    held = leases_pb2.Resource(id=parent, type=f"snapshots/{ship.snapshotter}")
    with ship.connect() as connection:
        connection.leases.add_resource(leases_pb2.AddResourceRequest(id="hold", resource=held))
        ship.ctr("images", "rm", "--sync", BUSYBOX)
        assert ship.keys() == [parent]
        ship.snapshots("view", "look", parent)
        with ship.shown("look", tmp_path / "look") as target:
            with pytest.raises(OSError, match="Read-only"):
                (target / "made").write_text("x")
            assert (target / "bin/busybox").exists()
        ship.snapshots("rm", "look")
        ship.ctr("leases", "rm", "hold")
        leases.collect(connection)
    assert ship.keys() == []


def test_content_of_an_image(ship: Ship) -> None:
    ship.unpack()
    digest = ship.manifest()
    ship.ctr("content", "label", digest, "port=lisbon")
    (row,) = [line for line in ship.ctr("content", "ls").splitlines() if line.startswith(digest)]
    assert "port=lisbon" in row
    assert f"containerd.io/gc.ref.snapshot.{ship.snapshotter}" in ship.ctr("content", "ls")
    manifest = json.loads(ship.ctr("content", "get", digest))
    (layer,) = manifest["layers"]
    assert layer["digest"] in ship.ctr("content", "ls", "-q").split()
