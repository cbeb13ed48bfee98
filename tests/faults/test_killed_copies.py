"""orlopd is killed while it copies a snapshot."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.sys.mount import Mount, mount_all, unmount
from orlop.wire.services import snapshots_pb2 as pb
from tests.daemon_fixture import Orlopd

pytestmark = [pytest.mark.root, pytest.mark.fresh]

_FILES = 20_000
_NATIVE = ("snapshots", "--snapshotter", "native")


def _prepare(orlopd: Orlopd, key: str) -> list[Mount]:
    with orlopd.connect() as connection:
        answer = connection.snapshots.prepare(
            pb.PrepareSnapshotRequest(
                snapshotter="native", key=key, labels={"containerd.io/gc.root": "x"}
            )
        )
    return [Mount(m.type, m.source, m.target, tuple(m.options)) for m in answer.mounts]


def test_a_copy_ends_with_the_daemon(orlopd: Orlopd, tmp_path: Path) -> None:
    """The next one would delete a folder into which somebody still writes."""
    folders, base = _base(orlopd, tmp_path)
    caller = _caught(orlopd)
    orlopd.kill9()
    caller.wait(30)
    orlopd.start()
    assert _copies(orlopd) == []
    orlopd.wait_for(lambda: list(folders.iterdir()) == [base], 30)
    assert len(list(base.iterdir())) == _FILES
    orlopd.ctr(*_NATIVE, "prepare", "next", "base")
    orlopd.ctr(*_NATIVE, "rm", "next")
    orlopd.ctr(*_NATIVE, "rm", "base")


def test_a_stop_waits_for_no_copy(orlopd: Orlopd, tmp_path: Path) -> None:
    """The client hears of it, and nothing is left of what was made."""
    folders, base = _base(orlopd, tmp_path)
    caller = _caught(orlopd)
    orlopd.stop()
    assert caller.wait(30)
    assert _copies(orlopd) == []
    assert list(folders.iterdir()) == [base]
    orlopd.start()
    orlopd.ctr(*_NATIVE, "rm", "base")


def _base(orlopd: Orlopd, target: Path) -> tuple[Path, Path]:
    """A snapshot with many files: the folder of all, and its own."""
    mount_all(_prepare(orlopd, "work"), target)
    for number in range(_FILES):
        (target / str(number)).touch()
    unmount(target)
    orlopd.ctr(*_NATIVE, "commit", "base", "work")
    folders = orlopd.root / "snapshots/native/snapshots"
    (base,) = folders.iterdir()
    return folders, base


def _caught(orlopd: Orlopd) -> subprocess.Popen[bytes]:
    """A client that has a snapshot made, of which the copy is stopped; it may be too quick."""
    while True:
        command = orlopd.ctr_command(*_NATIVE, "prepare", "next", "base")
        caller = orlopd.spawn(command, orlopd.folder / "caller.log")
        while caller.poll() is None:
            if any(_stopped(pid) for pid in _copies(orlopd)):
                return caller
        assert caller.returncode == 0
        orlopd.ctr(*_NATIVE, "rm", "next")


def _stopped(pid: int) -> bool:
    """Stop a copy, which will never end by itself then; False if it has ended before."""
    with suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")
        while (state := stat.read_text().rpartition(")")[2].split()[0]) not in "TZX":
            time.sleep(0.005)
        return state == "T"
    return False


def _copies(orlopd: Orlopd) -> list[int]:
    return [pid for pid, name in orlopd.processes() if name == "cp"]
