"""`orlop store backup` while the daemon writes, and a daemon on what it has saved."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import store_pb2
from tests.daemon_fixture import BUSYBOX, Orlopd

pytestmark = pytest.mark.root


@pytest.fixture
def restored() -> Iterator[Orlopd]:
    """Another orlopd, which is not started yet."""
    daemon = Orlopd()
    try:
        yield daemon
        daemon.close()
    finally:
        daemon.discard()


def test_a_daemon_on_what_was_saved(orlopd: Orlopd, busybox: str, restored: Orlopd) -> None:
    orlopd.orlop("run", "-d", "--name", "runs", busybox, "sleep", "1000")
    orlopd.orlop("network", "create", "deck")
    orlopd.orlop("tag", busybox, "second:1")
    told = orlopd.orlop("store", "backup", str(restored.root)).stdout
    assert told.startswith(f"{restored.root}: ") and "blobs" in told
    checked = subprocess.run(
        [*restored.command(), "check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, len(checked.stdout.splitlines())) == (0, 1), checked.stdout
    again = orlopd.orlop("store", "backup", str(restored.root), check=False)
    assert again.returncode == 1 and "already exists" in again.stderr
    orlopd.orlop("rm", "-f", "runs")
    for image in (busybox, "second:1"):
        orlopd.orlop("rmi", image)
    orlopd.ctr("images", "ls")
    restored.namespace = orlopd.namespace
    restored.start()
    images = restored.orlop("images").stdout
    assert "busybox" in images and "second" in images
    assert "deck" in restored.orlop("network", "ls").stdout
    assert restored.orlop("ps", "-a", "-q").stdout == ""
    assert restored.orlop("run", "--rm", busybox, "echo", "here").stdout == "here\n"
    assert restored.orlop("store", "check").stdout == ""
    restored.orlop("network", "rm", "deck")
    orlopd.orlop("network", "rm", "deck")


def test_while_others_write_and_remove(
    orlopd: Orlopd, busybox_archive: Path, tmp_path: Path
) -> None:
    """Whatever comes and goes meanwhile, each backup is sound in itself."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            orlopd.ctr("images", "import", "--no-unpack", str(busybox_archive))
            orlopd.ctr("images", "rm", "--sync", BUSYBOX)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for number in range(6):
            orlopd.orlop("store", "backup", str(tmp_path / f"b{number}"))
    finally:
        stop.set()
        churning.join()
    for number in range(6):
        path = tmp_path / f"b{number}"
        done = subprocess.run(
            [orlopd.command()[0], "--root", str(path), "check"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stdout
    assert not list((orlopd.root / "content/trash").iterdir())


def test_the_whole_database_of_the_same_host(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """A root whose database is lost goes on with the copy, containers and all."""
    orlopd.orlop("create", "--name", "one", busybox, "echo", "still here")
    orlopd.orlop("store", "backup", str(tmp_path / "backup"))
    orlopd.stop()
    for path in orlopd.root.glob("metadata.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup/whole.db", orlopd.root / "metadata.db")
    orlopd.start()
    assert orlopd.orlop("start", "-a", "one").stdout == "still here\n"
    orlopd.orlop("rm", "one")


def test_where_no_backup_can_be(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount_all([Mount("tmpfs", "tmpfs", options=("size=600k",))], small)
    try:
        done = orlopd.orlop("store", "backup", str(small / "backup"), check=False)
        assert done.returncode == 1 and "no space left for the backup" in done.stderr
        assert list(small.iterdir()) == []
    finally:
        unmount(small)
    inside = orlopd.orlop("store", "backup", str(orlopd.root / "backup"), check=False)
    assert "would be in the root" in inside.stderr
    nowhere = orlopd.orlop("store", "backup", str(tmp_path / "no/backup"), check=False)
    assert "is no folder" in nowhere.stderr
    orlopd.wait_for(lambda: not list((orlopd.root / "content/trash").iterdir()))


def test_a_backup_that_is_cancelled_keeps_nothing(
    orlopd: Orlopd, busybox: str, tmp_path: Path
) -> None:
    """Its worker is killed while it has a second name of each blob."""
    layer = max(orlopd.root.glob("content/blobs/*/*"), key=lambda path: path.stat().st_size)
    layer.rename(layer.with_suffix(".away"))
    os.mkfifo(layer)  # whose copy takes as long as it is to
    trash = orlopd.root / "content/trash"
    try:
        with orlopd.connect() as connection:
            request = store_pb2.BackupRequest(path=str(tmp_path / "backup"))
            answers = connection.store.backup(request)
            next(answers)
            assert layer.stat().st_ino in {path.stat().st_ino for path in trash.iterdir()}
            second = orlopd.orlop("store", "backup", str(tmp_path / "second"), check=False)
            assert (second.returncode, "another backup" in second.stderr) == (1, True)
            answers.close()
        orlopd.wait_for(lambda: not any(name == "orlop-backup" for _, name in orlopd.processes()))
        orlopd.wait_for(lambda: not list(trash.iterdir()))
        orlopd.wait_for(lambda: not list(tmp_path.iterdir()))
    finally:
        layer.with_suffix(".away").replace(layer)
