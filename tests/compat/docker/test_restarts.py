"""Daemons that end and come back above and below containers that run on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


@pytest.fixture
def lasting(dockerd: Dockerd) -> Iterator[Dockerd]:
    """A dockerd whose containers outlive it."""
    dockerd.live_restore(True)
    yield dockerd
    dockerd.revive()
    dockerd.live_restore(False)


def pid(dockerd: Dockerd, name: str) -> int:
    found: int = dockerd.inspect(name)["State"]["Pid"]
    return found


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_containers_outlive_dockerd(lasting: Dockerd, how: str) -> None:
    lasting.sleeper("boat")
    lasting.docker("run", "-di", "--name", "ship", "busybox", "sh", "-c",
                   "n=0; while sleep 0.1; do n=$((n+1)); echo $n; done")  # fmt: skip
    lasting.sleeper("raft")
    before = {name: pid(lasting, name) for name in ("boat", "ship", "raft")}
    if how == "killed":
        lasting.kill9()
    else:
        lasting.stop()
    os.kill(before["raft"], signal.SIGKILL)
    lasting.start()
    assert {name: pid(lasting, name) for name in ("boat", "ship")} == {
        name: before[name] for name in ("boat", "ship")
    }
    lasting.wait_for(lambda: lasting.status("raft") == "exited")
    assert lasting.inspect("raft")["State"]["ExitCode"] == 137
    assert lasting.out("exec", "boat", "echo", "ahoy") == "ahoy"
    told = len(lasting.out("logs", "ship").split())
    lasting.wait_for(lambda: len(lasting.out("logs", "ship").split()) > told)
    numbers = [int(each) for each in lasting.out("logs", "ship").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    lasting.docker("stop", "boat")
    assert lasting.inspect("boat")["State"]["ExitCode"] == 0


def test_dockerd_stops_what_shall_not_outlive_it(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    dockerd.sleeper("ship", "--restart", "always")
    ship = pid(dockerd, "ship")
    dockerd.stop()
    assert not dockerd.engine.ctr("tasks", "ls", "-q").stdout
    dockerd.start()
    assert dockerd.status("boat") == "exited"
    dockerd.wait_for(lambda: pid(dockerd, "ship") not in {0, ship})


def test_containers_outlive_a_dockerd_that_was_killed(dockerd: Dockerd) -> None:
    """Without live restore the next dockerd ends them."""
    dockerd.sleeper("boat")
    dockerd.kill9()
    dockerd.start()
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited")
    dockerd.docker("start", "boat")
    assert dockerd.out("exec", "boat", "echo", "ahoy") == "ahoy"


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_daemon_below_comes_back(dockerd: Dockerd, how: str) -> None:
    """Containers run on, dockerd finds the next one, and ends are noticed."""
    dockerd.sleeper("boat")
    dockerd.sleeper("ship", "--restart", "always")
    boat, ship = pid(dockerd, "boat"), pid(dockerd, "ship")
    if how == "killed":
        dockerd.engine.kill9()
    else:
        dockerd.engine.stop()
    dockerd.engine.start()
    assert Path(f"/proc/{boat}").exists()
    dockerd.wait_for(
        lambda: dockerd.docker("exec", "boat", "echo", "ahoy", check=False).stdout == "ahoy\n", 60
    )
    assert (pid(dockerd, "boat"), pid(dockerd, "ship")) == (boat, ship)
    assert dockerd.out("run", "--rm", "busybox", "echo", "ahoy") == "ahoy"
    for victim in (boat, ship):
        os.kill(victim, signal.SIGKILL)
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited", 30)
    dockerd.wait_for(lambda: pid(dockerd, "ship") not in {0, ship}, 30)
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 137
    dockerd.docker("start", "boat")
    dockerd.docker("stop", "boat", "ship")


@pytest.mark.parametrize("dockyard", ["orlopd"], indirect=True)
@pytest.mark.parametrize("whose", ["container", "shim"])
def test_what_ends_meanwhile_is_noticed(dockerd: Dockerd, whose: str) -> None:
    """A container that ends while the daemon below is away.

    With containerd it is a matter of luck: dockerd may find it again only after it has told.
    """
    dockerd.sleeper("boat")
    victim = pid(dockerd, "boat")
    if whose == "shim":
        victim = int(Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[1])
    dockerd.engine.kill9()
    os.kill(victim, signal.SIGKILL)
    dockerd.engine.start()
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited", 60)
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 137
