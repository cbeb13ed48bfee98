"""A root whose filesystem has become read-only, as the kernel makes it after an error of a disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.disks import formatted

pytestmark = pytest.mark.root

_EXT4 = ["mkfs.ext4", "-q", "-e", "remount-ro"]
_SIZE = 128 << 20


def _fail(disk: Path) -> None:
    """What an error of its disk does to a filesystem."""
    subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=False, capture_output=True)
    with pytest.raises(OSError, match="Read-only"):
        (disk / "probe").touch()


def test_a_root_that_becomes_read_only(tmp_path: Path, busybox_archive: Path) -> None:
    """What is there is read and runs on, what would change is refused; then all is as before."""
    folder = tmp_path / "disk"
    folder.mkdir()
    daemon = Orlopd()
    try:
        with formatted(folder, _EXT4, _SIZE) as disk:
            daemon.root = disk / "root"
            daemon.start()
            daemon.orlop("load", "-i", str(busybox_archive))
            daemon.orlop("run", "-d", "--name", "before", BUSYBOX, "sleep", "1000")
            _fail(disk)
            _check_what_is_refused(daemon, busybox_archive)
            daemon.stop()
            process = daemon.spawn([*daemon.command(), *daemon.options], daemon.folder / "refused")
            assert process.wait(60) == 1
            (line,) = (daemon.folder / "refused").read_text().splitlines()
            assert f"Read-only file system: '{daemon.root}'" in line
        with formatted(folder, _EXT4, _SIZE):
            daemon.start()
            assert BUSYBOX in daemon.orlop("images").stdout
            assert daemon.orlop("store", "check").stdout == ""
            assert daemon.orlop("run", "--rm", BUSYBOX, "echo", "well").stdout == "well\n"
            daemon.orlop("start", "before")
            daemon.orlop("rm", "-f", "before")
            daemon.close()
    finally:
        daemon.discard()
        (folder / "image").unlink()


def _check_what_is_refused(daemon: Orlopd, archive: Path) -> None:
    assert BUSYBOX in daemon.orlop("images").stdout
    assert daemon.orlop("exec", "before", "echo", "runs on").stdout == "runs on\n"
    for command in (
        ("run", "--rm", BUSYBOX, "true"),
        ("tag", BUSYBOX, "other:1"),
        ("load", "-i", str(archive)),
        ("rmi", BUSYBOX),
        ("rm", "-f", "before"),
    ):
        refused = daemon.orlop(*command, check=False)
        assert refused.returncode != 0
        assert (
            f'"{daemon.root}" is read-only; see whether the log of the kernel' in refused.stderr
        ), command
    # It is killed all the same; its record and its files stay.
    assert "before" not in daemon.ctr("tasks", "ls").stdout
    assert daemon.orlop("ps", "-aq").stdout == "before\n"
