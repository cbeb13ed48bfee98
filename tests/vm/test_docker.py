"""Docker Engine on orlopd where the kernel has it all: cgroup v2, criu, every capability."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd, dockerd_on
from tests.compat.docker.engines import ENGINES
from tests.glutton import EAT


@pytest.fixture(scope="module", params=["containerd-cgroupfs", "orlopd-cgroupfs", "orlopd-systemd"])
def dockyard(request: pytest.FixtureRequest, busybox_archive: Path) -> Iterator[Dockerd]:
    engine, _, driver = request.param.partition("-")
    with dockerd_on(ENGINES[engine](), busybox_archive, systemd=driver == "systemd") as made:
        yield made


@pytest.fixture
def dockerd(dockyard: Dockerd) -> Iterator[Dockerd]:
    yield dockyard
    dockyard.revive()
    dockyard.clear()


def test_privileged(dockerd: Dockerd) -> None:
    show = "grep CapEff /proc/self/status; ls /dev; mount -t tmpfs x /tmp && echo on"
    shown = dockerd.out("run", "--rm", "--privileged", "busybox", "sh", "-c", show)
    assert int(shown.split()[1], 16).bit_count() > 35
    assert {"vda", "kmsg"} <= set(shown.split())
    assert shown.endswith("on")


def test_limits_statistics_and_updates(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat", "--memory", "64m", "--pids-limit", "33", "--cpus", "0.5")
    show = ("exec", "boat", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max")
    assert dockerd.out(*show).split() == [str(64 << 20), "33", "50000", "100000"]
    assert dockerd.out("stats", "--no-stream", "--format", "{{.PIDs}}", "boat") == "2"
    limits = ("--memory", "48m", "--memory-swap", "96m", "--pids-limit", "44")
    dockerd.docker("update", *limits, "boat")
    assert dockerd.out(*show).split()[:2] == [str(48 << 20), "44"]
    dockerd.docker("pause", "boat")
    assert dockerd.status("boat") == "paused"
    dockerd.docker("unpause", "boat")
    assert "sleep 1000" in dockerd.out("top", "boat")


def test_out_of_memory(dockerd: Dockerd) -> None:
    eat = f"sleep 1; {EAT}; sleep 1; exit 3"
    limits = ("--memory", "16m", "--memory-swap", "16m")
    dockerd.docker("run", "--name", "glutton", *limits, "busybox", "sh", "-c", eat, check=False)
    assert dockerd.inspect("glutton")["State"]["ExitCode"] == 3
    dockerd.wait_for(lambda: bool(dockerd.inspect("glutton")["State"]["OOMKilled"]))


def test_checkpoint_and_restore(dockerd: Dockerd) -> None:
    """The container counts on from where it was."""
    count = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.2; done"
    dockerd.docker("run", "-d", "--name", "boat", "busybox", "sh", "-c", count)

    def told() -> list[int]:
        return [int(each) for each in dockerd.out("logs", "boat").split()]

    dockerd.wait_for(lambda: len(told()) > 3)
    dockerd.docker("checkpoint", "create", "--leave-running", "boat", "first")
    dockerd.docker("checkpoint", "create", "boat", "second")
    assert dockerd.out("checkpoint", "ls", "boat").split()[2:] == ["first", "second"]
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited")
    before = told()
    dockerd.docker("start", "--checkpoint", "second", "boat")
    dockerd.wait_for(lambda: len(told()) > len(before) + 3)
    numbers = told()
    assert numbers == list(range(len(numbers)))
    dockerd.docker("checkpoint", "rm", "boat", "first")
    assert dockerd.out("checkpoint", "ls", "boat").split()[2:] == ["second"]
