"""An orlopd whose root is on btrfs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.sys.mount import unmount
from tests.daemon_fixture import Orlopd, serving_with

pytestmark = pytest.mark.root


@pytest.fixture
def orlopd(tmp_path: Path) -> Iterator[Orlopd]:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(300 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(disk)], check=True)
    target = tmp_path / "mounted"
    target.mkdir()
    subprocess.run(["mount", "-o", "loop", str(disk), str(target)], check=True)
    daemon = Orlopd()
    daemon.root = target / "root"
    try:
        yield from serving_with(daemon)
    finally:
        unmount(target)


def test_containers_on_subvolumes(orlopd: Orlopd, registry: str) -> None:
    name, by = f"{registry}/test/busybox:latest", ("--snapshotter", "btrfs")
    orlopd.orlop("pull", "--plain-http", *by, name)
    assert orlopd.orlop("run", "--rm", *by, name, "echo", "there").stdout == "there\n"
    orlopd.ctr("run", *by, name, "job", "sh", "-c", "echo x > /made")
    usage = orlopd.ctr("snapshots", *by, "usage", "job").stdout.splitlines()[1].split()
    assert int(usage[-1]) < 10, usage  # the root and what was made, and not the image again
    orlopd.ctr("snapshots", *by, "commit", "mine", "job")
    orlopd.ctr("containers", "rm", "--keep-snapshot", "job")
    listing = ["btrfs", "subvolume", "list", str(orlopd.root.parent)]
    assert len(subprocess.check_output(listing).splitlines()) == 2
    orlopd.ctr("snapshots", *by, "rm", "mine")
    orlopd.ctr("images", "rm", "--sync", name)
    orlopd.wait_for(lambda: not subprocess.check_output(listing).strip())
