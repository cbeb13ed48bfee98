"""The shim that is forked before anybody needs it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def named(orlopd: Orlopd, name: str) -> set[int]:
    return {pid for pid, comm in orlopd.processes() if comm == name}


def spare(orlopd: Orlopd) -> int:
    """The keeper of the spare shim, once there is one."""
    orlopd.wait_for(lambda: len(named(orlopd, "orlop-spare")) == 1)
    return named(orlopd, "orlop-spare").pop()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def run(orlopd: Orlopd, busybox: str, name: str) -> int:
    """Run a container; the pid of its shim."""
    orlopd.ctr("run", "-d", busybox, name, "sleep", "1000")
    tasks = [line.split() for line in orlopd.ctr("tasks", "ls").stdout.splitlines()]
    return parent(next(int(pid) for task, pid, *_ in tasks if task == name))


def remove(orlopd: Orlopd, name: str) -> None:
    orlopd.ctr("tasks", "rm", "-f", name)
    orlopd.ctr("containers", "rm", name)


def test_it_becomes_the_next_shim_and_another_waits(orlopd: Orlopd, busybox: str) -> None:
    first = spare(orlopd)
    assert run(orlopd, busybox, "one") == first
    second = spare(orlopd)
    assert second != first
    assert first in named(orlopd, "orlop-shim")
    assert run(orlopd, busybox, "two") == second
    remove(orlopd, "one")
    remove(orlopd, "two")


def test_nobody_needs_it(orlopd: Orlopd, busybox: str) -> None:
    os.kill(spare(orlopd), signal.SIGKILL)
    orlopd.wait_for(lambda: not named(orlopd, "orlop-spare"))
    run(orlopd, busybox, "one")
    spare(orlopd)
    remove(orlopd, "one")


def test_it_ends_with_its_daemon(orlopd: Orlopd) -> None:
    spare(orlopd)
    orlopd.kill9()
    orlopd.wait_for(lambda: not orlopd.leftovers().get("processes"))
    orlopd.start()
