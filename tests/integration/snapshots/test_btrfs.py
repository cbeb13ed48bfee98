"""An orlopd whose root is on btrfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.snapshots import BtrfsDriver
from orlop.sys.removal import remove_tree
from tests.daemon_fixture import Orlopd, serving_with
from tests.disks import btrfs, formatted
from tests.nasty_tree import deep

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


def test_shared_memory_of_the_database_is_written_in_place(orlopd: Orlopd) -> None:
    """Also by a daemon that finds that of one which was killed."""
    memory = str(orlopd.root / "metadata.db-shm")
    for _ in range(2):
        listed = subprocess.run(["lsattr", memory], check=True, capture_output=True, text=True)
        assert "C" in listed.stdout.split()[0]
        orlopd.kill9()
        orlopd.start()


def test_usage_of_trees_that_containers_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeper than a path can be long, and with folders that become links, or go, on the way."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(50):
        (outside / str(number)).touch()
    with btrfs(tmp_path, 64 << 20) as disk:
        driver = BtrfsDriver(disk / "root")
        driver.create(1, (), read_only=False)
        content = driver.content(1)
        deep(content / "deep", 5000)
        for name in ("swapped", "gone"):
            (content / name).mkdir()
        assert driver.usage(1).inodes == 1 + 5002 + 2
        real = os.scandir

        @contextmanager
        def scandir(path: int | str) -> Iterator[Iterator[os.DirEntry[str]]]:
            """What was seen in the first folder is another thing when it is looked into."""
            with real(path) as entries:
                yield entries
            if (content / "gone").is_dir():
                (content / "gone").rmdir()
                (content / "swapped").rmdir()
                (content / "swapped").symlink_to(outside)

        monkeypatch.setattr(os, "scandir", scandir)
        assert driver.usage(1).inodes == 1 + 5002
        monkeypatch.undo()
        remove_tree(content / "deep")
