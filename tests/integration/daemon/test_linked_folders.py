"""An orlopd whose folders are named by links, as /var/run is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import BUSYBOX, Orlopd, serving_with

pytestmark = pytest.mark.root


@pytest.fixture
def orlopd() -> Iterator[Orlopd]:
    daemon = Orlopd()
    real, link = daemon.folder / "real", daemon.folder / "link"
    real.mkdir()
    link.symlink_to(real)
    daemon.root, daemon.state = link / "root", link / "state"
    daemon.address = str(daemon.state / "orlop.sock")
    yield from serving_with(daemon)


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_what_a_container_has_written_outlives_it(
    orlopd: Orlopd, busybox_archive: Path, snapshotter: str
) -> None:
    by = ("--snapshotter", snapshotter)
    orlopd.ctr("images", "import", *by, str(busybox_archive))
    orlopd.ctr("run", "-d", *by, BUSYBOX, "one", "sh", "-c", "echo x > /made; exec sleep 600")
    snapshots = orlopd.root / "snapshots" / snapshotter / "snapshots"
    orlopd.wait_for(lambda: _made(snapshots))
    before = _everything(snapshots)
    for _ in range(2):
        orlopd.ctr("tasks", "kill", "--signal", "KILL", "one")
        orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
        orlopd.ctr("tasks", "rm", "one")
        assert "/rootfs" not in _mounts_below(orlopd.folder)
        assert _everything(snapshots) == before
        orlopd.ctr("tasks", "start", "-d", "one")
        orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
    assert orlopd.ctr("tasks", "exec", "--exec-id", "e", "one", "cat", "/made").stdout == "x\n"
    orlopd.ctr("tasks", "rm", "--force", "one")
    orlopd.ctr("containers", "rm", "one")


def _made(snapshots: Path) -> bool:
    return any(each.read_text() for each in snapshots.glob("*/**/made"))


def _everything(snapshots: Path) -> list[str]:
    return sorted(str(each) for each in snapshots.rglob("*") if each.parent.name != "work")


def _mounts_below(folder: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return "\n".join(line for line in lines if str(folder) in line)
