"""Many containers, one after another and at once, leave nothing behind."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = [pytest.mark.root, pytest.mark.fresh, pytest.mark.slow, pytest.mark.timeout(600)]


def _resident(pid: int) -> int:
    """Private memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _descriptors(orlopd: Orlopd) -> list[str]:
    """What the daemon's descriptors are, but for readers of the database: their pool has a limit,
    which it reaches whenever so many calls happen to read at once."""
    found = []
    for each in Path(f"/proc/{orlopd.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return [each for each in found if not each.startswith(f"{orlopd.root}/metadata.db")]


def _count(orlopd: Orlopd) -> dict[str, int]:
    """What could grow: descriptors, threads, files of the daemon; snapshots on disk."""
    return {
        "fds": len(_descriptors(orlopd)),
        "state": len([p for p in orlopd.state.rglob("*") if not p.is_dir()]),
        "snapshots": len(list((orlopd.root / "snapshots/overlayfs/snapshots").iterdir())),
        "cgroups": len(list(Path("/sys/fs/cgroup").glob(f"*/{orlopd.namespace}/*/"))),
        "shims": sum(name == "orlop-shim" for _, name in orlopd.processes()),
    }


def _is_quiet(orlopd: Orlopd) -> bool:
    """Whether no shim is left but the spare one, which is there."""
    names = {name for _, name in orlopd.processes()}
    return "orlop-shim" not in names and "orlop-spare" in names


def _run(orlopd: Orlopd, image: str, name: str) -> None:
    done = orlopd.ctr("run", "--rm", image, name, "echo", name)
    assert done.stdout == f"{name}\n"


def test_two_hundred_one_after_another(orlopd: Orlopd, busybox: str) -> None:
    for number in range(100):  # thread pools and caches reach their size
        _run(orlopd, busybox, f"warm{number}")
    orlopd.wait_for(lambda: _is_quiet(orlopd))
    before = _count(orlopd)
    grown = []
    for hundred in "ab":
        memory = _resident(orlopd.pid)
        for number in range(100):
            _run(orlopd, busybox, f"{hundred}{number}")
        grown.append(_resident(orlopd.pid) - memory)
    # What the last of the first hundred had not given back yet may be in `before`.
    end = time.monotonic() + patient(10)
    while more := {key: n for key, n in _count(orlopd).items() if n > before[key]}:
        assert time.monotonic() < end, (more, before, _descriptors(orlopd))
    # A leak shows in both; one more arena of malloc's, on a busy machine, only once.
    assert min(grown) < 2048, f"orlopd grew by {grown} KiB, each over 100 containers"


def test_fifty_at_once(orlopd: Orlopd, busybox: str) -> None:
    _run(orlopd, busybox, "warm")
    orlopd.wait_for(lambda: _is_quiet(orlopd))
    before = {key: value for key, value in _count(orlopd).items() if key != "fds"}
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda n: _run(orlopd, busybox, f"c{n}"), range(50)))

    def settled() -> bool:
        now = _count(orlopd)
        return all(now[key] <= value for key, value in before.items())  # fewer: of "warm"

    orlopd.wait_for(settled)


def test_fifty_running_at_once(orlopd: Orlopd, busybox: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: orlopd.ctr("run", "-d", busybox, f"c{n}", "sleep", "1000"), range(50)
            )
        )
        assert orlopd.ctr("tasks", "ls").stdout.count("RUNNING") == 50
        list(pool.map(lambda n: orlopd.ctr("tasks", "rm", "-f", f"c{n}", check=False), range(50)))
        list(pool.map(lambda n: orlopd.ctr("containers", "rm", f"c{n}"), range(50)))
    assert orlopd.ctr("tasks", "ls", "-q").stdout == ""


def test_a_client_that_is_killed_leaves_its_container_alone(orlopd: Orlopd, busybox: str) -> None:
    with subprocess.Popen(
        orlopd.ctr_command("run", busybox, "left", "sleep", "1000"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
        threads = len(list(Path(f"/proc/{orlopd.pid}/task").iterdir()))
        client.kill()
    assert "RUNNING" in orlopd.ctr("tasks", "ls").stdout
    assert threads < 60
    orlopd.ctr("tasks", "rm", "-f", "left", check=False)
    orlopd.ctr("containers", "rm", "left")
