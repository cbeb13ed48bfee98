"""Limits of what is written to snapshots, where this kernel can, and where it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.snapshots import NativeDriver, OverlayDriver, quota
from orlop.snapshots.quota import Limits
from tests.daemon_fixture import Orlopd, serving_with
from tests.disks import formatted

pytestmark = pytest.mark.root

_FULL = "sh", "-c", "dd if=/dev/urandom of=/big bs=64k count=256 2>&1; stat -c %b /big"


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Orlopd]:
    with formatted(tmp_path, ["mkfs.btrfs", "-q"], 400 << 20) as target:
        daemon = Orlopd()
        daemon.root = target / "root"
        yield from serving_with(daemon)


def test_a_subvolume_has_a_limit(on_btrfs: Orlopd, registry: str) -> None:
    name, by = f"{registry}/test/busybox:latest", ("--snapshotter", "btrfs")
    small = (*by, "--storage-opt", "size=4m")
    on_btrfs.orlop("pull", "--plain-http", *by, name)
    refused = on_btrfs.orlop("run", "--rm", *small, name, "true", check=False)
    assert (refused.returncode, "btrfs quota enable" in refused.stderr) == (125, True)
    subprocess.run(["btrfs", "quota", "enable", on_btrfs.root], check=True)
    subprocess.run(["btrfs", "quota", "rescan", "-w", on_btrfs.root], check=True)
    full = on_btrfs.orlop("run", "--rm", *small, name, *_FULL, check=False).stdout
    assert "Disk quota exceeded" in full or "No space left" in full
    assert int(full.split()[-1]) * 512 <= 4 << 20
    assert "256+0 records out" in on_btrfs.orlop("run", "--rm", *by, name, *_FULL).stdout
    refused = on_btrfs.orlop("run", *by, "--storage-opt", "inodes=5", name, "true", check=False)
    assert "not their inodes" in refused.stderr
    on_btrfs.orlop("rmi", name)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (["mkfs.ext4", "-q"], "is on ext4, .* tune2fs -O project,quota"),
        (["mkfs.xfs", "-q"], "is on xfs, .* rootflags=prjquota"),
        (["mkfs.btrfs", "-q"], 'is on btrfs, .* the snapshotter "btrfs" can'),
    ],
)
@pytest.mark.parametrize("driver", [OverlayDriver, NativeDriver])
def test_where_the_filesystem_cannot(
    tmp_path: Path, driver: type[OverlayDriver | NativeDriver], make: list[str], told: str
) -> None:
    with formatted(tmp_path, make, 400 << 20) as target:
        made = driver(target / "root")
        with pytest.raises(FailedPrecondition, match=told):
            made.create(1, (), read_only=False, limits=Limits(1 << 20))
        made.discard(1)
        assert made.numbers() == set()
        made.create(2, (), read_only=False)


def test_what_is_asked_for(orlopd: Orlopd, busybox: str) -> None:
    """An answer to everything that asks, and nothing of it left."""
    for option, told in (
        ("size=5x", 'quota.size "5x" is not a size'),
        ("size=", "is not size=…, inodes=… or volatile"),
        ("colour=red", 'storage option "colour=red"'),
        ("size=5g", "size of snapshots cannot be limited"),
    ):
        refused = orlopd.orlop("run", "--storage-opt", option, busybox, "true", check=False)
        assert refused.returncode == 125
        assert told in refused.stderr
    assert orlopd.ctr("snapshots", "ls").stdout.count("Active") == 0
    assert orlopd.orlop("ps", "-aq").stdout == ""


def test_sizes() -> None:
    assert quota.wanted({}, Limits(5, 6)) == Limits(5, 6)
    labels = {quota.SIZE_LABEL: "10G", quota.INODES_LABEL: "100"}
    assert quota.wanted(labels, Limits(5, 6)) == Limits(10 << 30, 100)
    assert quota.wanted({quota.SIZE_LABEL: "0"}, Limits(5)) == Limits()
    assert [quota.size_of("x", text) for text in ("1", "2k", "3MiB", "4gb")] == [
        1, 2 << 10, 3 << 20, 4 << 30,
    ]  # fmt: skip
    for text in ("", "-1", "1.5g", "99999p"):
        with pytest.raises(InvalidArgument):
            quota.size_of("x", text)
