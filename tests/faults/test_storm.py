"""The short form of the storm, and a disk that is full at every write; `make storm` is longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import disks
from tests.storm import named, power
from tests.storm.rooms import PROXY
from tests.storm.storm import Storm

pytestmark = pytest.mark.root

_PAGE = 4096
_ON_TMPFS = ("overlayfs", "native", "erofs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disks.tmpfs(tmp_path) as path:
        yield path


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    with disks.btrfs(tmp_path, 64 << 20) as path:
        yield path


def _kill(storm: Storm, patterns: dict[str, str], names: list[str], more: int) -> None:
    """At the steps that have names, and at others."""
    torn = named.steps(patterns, names)
    for name in torn:
        assert storm.kill_at(name), name
    for _ in range(more):
        storm.kill_anywhere()
    assert storm.kills > len(torn)


def test_killed_while_it_stores_blobs_and_mounts(tmp_path: Path, disk: Path) -> None:
    with closing(Storm(disk, tmp_path, 1, ["overlayfs"])) as storm:
        _kill(storm, named.COMMON, storm.names(), 5)


@pytest.mark.parametrize("snapshotter", _ON_TMPFS)
def test_killed_while_it_makes_snapshots(tmp_path: Path, disk: Path, snapshotter: str) -> None:
    with closing(Storm(disk, tmp_path, 3, [snapshotter])) as storm:
        _kill(storm, named.of(snapshotter), storm.names(), 3)


def test_killed_on_btrfs(tmp_path: Path, btrfs: Path) -> None:
    with closing(Storm(btrfs, tmp_path, 4, ["btrfs"])) as storm:
        _kill(storm, named.of("btrfs"), storm.names(), 3)


def test_killed_as_a_guest_and_as_a_host(tmp_path: Path, disk: Path) -> None:
    """Of two daemons, of which one has the other's snapshotter, either is."""
    with closing(Storm(disk, tmp_path, 5, [PROXY])) as storm:
        names, beside = storm.names(), storm.names_beside()
        for name in named.steps(named.of_neighbour(), beside):
            assert storm.kill_beside_at(name), name
        _kill(storm, named.of(PROXY), names, 3)


@pytest.mark.parametrize("filesystem", power.FILESYSTEMS)
@pytest.mark.slow
def test_the_power_is_cut(tmp_path: Path, filesystem: str) -> None:
    with power.storm_on(filesystem, tmp_path, 7) as storm:
        for _ in range(12):
            storm.kill_anywhere()
        assert storm.kills > 6


def test_full_at_every_write(tmp_path: Path, disk: Path) -> None:
    with closing(Storm(disk, tmp_path, 2, _ON_TMPFS)) as storm:
        storm.fill(16 << 20)
        full = [storm.fill(pages * _PAGE) for pages in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]
        assert full[0] > 0 and sum(full) > 20
        counts = (0, 1, 2, 3, 4, 6, 8, 10, 15)
        assert sum(storm.fill(count, files=True) for count in counts) > 20


def test_full_btrfs(tmp_path: Path, btrfs: Path) -> None:
    with closing(Storm(btrfs, tmp_path, 6, ["btrfs"])) as storm:
        storm.fill(16 << 20)
        assert sum(storm.fill(pages * _PAGE) for pages in (0, 64, 256, 512, 1024, 2048)) > 6
