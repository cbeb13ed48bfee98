"""An orlopd whose root is on btrfs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
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


def test_the_database_shares_no_memory_which_a_full_disk_would_take(
    orlopd: Orlopd, busybox: str, tmp_path: Path
) -> None:
    """It is the daemon's alone; check and backup read what is there now all the same."""
    memory, before = orlopd.root / "metadata.db-shm", set(orlopd.root.iterdir())
    assert not memory.exists()
    with (
        closing(sqlite3.connect(orlopd.root / "metadata.db", timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("SELECT * FROM images")
    orlopd.orlop("tag", busybox, "just-now")
    assert "no damage" in orlopd.orlop("store", "check").stderr
    orlopd.orlop("store", "backup", str(tmp_path / "backup"))
    orlopd.kill9()
    killed = orlopd.root / "metadata-read-1"  # a reader that was killed as well
    killed.mkdir()
    orlopd.start()
    assert not memory.exists() and not killed.exists()
    assert set(orlopd.root.iterdir()) == before
    with closing(sqlite3.connect(tmp_path / "backup/metadata.db")) as database:
        names = [row[0] for row in database.execute("SELECT name FROM images")]
    assert any(each.endswith("just-now:latest") for each in names), names


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
