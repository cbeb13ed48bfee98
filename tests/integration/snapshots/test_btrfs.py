"""An orlopd whose root is on btrfs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving_with
from tests.disks import formatted

pytestmark = pytest.mark.root


@pytest.fixture
def orlopd(tmp_path: Path) -> Iterator[Orlopd]:
    with formatted(tmp_path, ["mkfs.btrfs", "-q"], 300 << 20) as target:
        daemon = Orlopd()
        daemon.root = target / "root"
        yield from serving_with(daemon)


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
    orlopd.wait_for(lambda: len(subprocess.check_output(listing).splitlines()) == 2)
    orlopd.ctr("snapshots", *by, "rm", "mine")
    orlopd.ctr("images", "rm", "--sync", name)
    orlopd.wait_for(lambda: not subprocess.check_output(listing).strip())
