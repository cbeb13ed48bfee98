"""Daemons that end and come back above and below containers that run on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd
from tests.glutton import EAT
from tests.killing import kill
from tests.patience import patient

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
def test_containers_outlive_dockerd(lasting: Dockerd, how: str, tmp_path: Path) -> None:
    hush, quiet, said = (tmp_path / name for name in ("hush", "quiet", "said"))
    lasting.sleeper("boat")
    count = (
        f"n=0; while sleep 0.1; do [ -e {hush} ] && {{ touch {quiet}; continue; }};"
        f" n=$((n+1)); echo $n; echo $n >{said}; done"
    )
    lasting.docker("run", "-di", "--name", "ship", "-v", f"{tmp_path}:{tmp_path}",
                   "busybox", "sh", "-c", count)  # fmt: skip
    lasting.sleeper("raft")
    before = {name: pid(lasting, name) for name in ("boat", "ship", "raft")}
    lasting.wait_for(said.exists)
    hush.touch()  # what dockerd has read, and not written yet, would go with it
    lasting.wait_for(quiet.exists)
    lasting.wait_for(lambda: lasting.out("logs", "ship").split()[-1:] == said.read_text().split())
    if how == "killed":
        lasting.kill9()
    else:
        lasting.stop()
    hush.unlink()
    kill(before["raft"])
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
        kill(victim)
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited", 30)
    dockerd.wait_for(lambda: pid(dockerd, "ship") not in {0, ship}, 30)
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 137
    dockerd.docker("start", "boat")
    dockerd.docker("stop", "boat", "ship")


def test_what_is_in_flight_goes_on(dockerd: Dockerd, tmp_path: Path) -> None:
    """An exec, an attached terminal's pipes and a log that is followed, over another daemon."""
    count = "n=0; while sleep 0.1; do n=$((n+1)); echo $n; done"
    dockerd.docker("run", "-d", "--name", "ticker", "busybox", "sh", "-c", count)
    with ExitStack() as stack:
        gate = _Gate(dockerd, stack, tmp_path)
        attached = _talking(dockerd, stack, "run", "-i", "--name", "parrot", "busybox", "cat")
        followed = _talking(dockerd, stack, "logs", "-f", "ticker")
        assert _echo(attached, "before") == "before"
        dockerd.wait_for(lambda: dockerd.status("parrot") == "running")  # as dockerd knows it
        dockerd.engine.kill9()
        assert _echo(attached, "meanwhile") == "meanwhile"
        dockerd.engine.start()
        dockerd.wait_for(
            lambda: dockerd.docker("exec", "parrot", "true", check=False).returncode == 0, 60
        )
        assert _echo(attached, "after") == "after"
        last = int(dockerd.out("logs", "--tail", "1", "ticker"))
        assert followed.stdout is not None
        lines = iter(followed.stdout.readline, "")
        assert [int(next(lines)) for _ in range(last + 3)] == list(range(1, last + 4))
        gate.open()
        assert gate.process.wait(patient(60)) == 7
        attached.stdin.close()  # type: ignore[union-attr]
        assert attached.wait(patient(60)) == 0
        dockerd.docker("rm", "-f", "ticker")
        assert followed.wait(patient(60)) == 0


@pytest.mark.parametrize("dockyard", ["orlopd"], indirect=True)
def test_an_exec_that_ends_meanwhile_is_noticed(dockerd: Dockerd, tmp_path: Path) -> None:
    """While the daemon below is away; with containerd it is a matter of luck, as below."""
    with ExitStack() as stack:
        gate = _Gate(dockerd, stack, tmp_path)
        dockerd.engine.kill9()
        gate.open()
        dockerd.wait_for(lambda: not gate.runs())
        dockerd.engine.start()
        assert gate.process.wait(patient(60)) == 7


@pytest.mark.parametrize("dockyard", ["orlopd"], indirect=True)
def test_memory_that_ran_out_meanwhile_is_noticed(dockerd: Dockerd, tmp_path: Path) -> None:
    go = tmp_path / "go"
    eat = f"until [ -e {go} ]; do sleep 0.1; done; {EAT}; exit 9"
    limits = ("--memory", "16m", "--memory-swap", "16m", "-v", f"{tmp_path}:{tmp_path}")
    dockerd.docker("run", "-d", "--name", "glutton", *limits, "busybox", "sh", "-c", eat)
    shell = pid(dockerd, "glutton")
    dockerd.engine.kill9()
    go.touch()
    dockerd.wait_for(lambda: not Path(f"/proc/{shell}").exists(), 60)
    dockerd.engine.start()
    dockerd.wait_for(lambda: dockerd.status("glutton") == "exited", 60)
    state = dockerd.inspect("glutton")["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (9, True)


class _Gate:
    """`docker exec`, in a new container "boat", of what ends with 7 once `open` is called."""

    def __init__(self, dockerd: Dockerd, stack: ExitStack, folder: Path) -> None:
        self._fifo = folder / "gate"
        os.mkfifo(self._fifo)
        dockerd.sleeper("boat", "--volume", f"{folder}:{folder}")
        script = f"read line <{self._fifo}; exit 7"
        command = dockerd.command("exec", "boat", "sh", "-c", script)
        self.process = stack.enter_context(subprocess.Popen(command))
        stack.callback(self.process.kill)
        self._dockerd = dockerd
        self._group = Path(f"/proc/{pid(dockerd, 'boat')}/ns/pid").readlink()
        dockerd.wait_for(lambda: self.runs() and self._is_known())

    def runs(self) -> bool:
        """Whether a shell other than the container's first, or what is to be it, is there."""
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (each / "cmdline").read_bytes().split(b"\0")
                inside = (each / "ns/pid").readlink() == self._group
                if inside and words[0] == b"sh" and f"<{self._fifo}".encode() in words[2]:
                    return True
        return False

    def _is_known(self) -> bool:
        """Whether dockerd has been told that it runs."""
        found = self._dockerd.inspect("boat")["ExecIDs"] or []
        return any(self._dockerd.client.api.exec_inspect(each)["Pid"] for each in found)

    def open(self) -> None:
        """Opening waits for the program to be there."""
        self._fifo.write_text("go\n")


def _talking(dockerd: Dockerd, stack: ExitStack, *arguments: str) -> subprocess.Popen[str]:
    process = stack.enter_context(
        subprocess.Popen(
            dockerd.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    )
    stack.callback(process.kill)
    return process


def _echo(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return process.stdout.readline().rstrip("\n")


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
    kill(victim)
    dockerd.engine.start()
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited", 60)
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 137
