"""The short form of the storm, and a disk that is full at every write; `make storm` is longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.sys.mount import Mount, mount_all, unmount
from tests.storm.__main__ import Storm, named

pytestmark = pytest.mark.root

_PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=32m,nr_inodes=2000",))], path)
    yield path
    unmount(path)


def test_killed_at_the_steps_that_have_names_and_at_others(tmp_path: Path, disk: Path) -> None:
    storm = Storm(disk, tmp_path, seed=1)
    names = storm.names()
    torn = named(names)
    for name in torn:
        assert storm.kill_at(name), name
    for _ in range(12):
        storm.kill_anywhere(10 * len(names))
    assert storm.kills > len(torn)


def test_full_at_every_write(tmp_path: Path, disk: Path) -> None:
    storm = Storm(disk, tmp_path, seed=2)
    storm.fill(16 << 20)
    full = [storm.fill(pages * _PAGE) for pages in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]
    assert full[0] > 0 and sum(full) > 20
    assert sum(storm.fill(count, files=True) for count in (0, 1, 2, 3, 4, 6, 8, 10, 15)) > 20
