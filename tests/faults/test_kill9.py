"""orlopd is killed with containers running; the next one finds them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing

pytestmark = pytest.mark.root

COUNT = 10


def _tasks(orlopd: Orlopd) -> dict[str, tuple[int, str]]:
    lines = orlopd.ctr("tasks", "ls").stdout.splitlines()[1:]
    return {name: (int(pid), status) for name, pid, status in map(str.split, lines)}


def _listens(pid: int) -> bool:
    """Whether a shell, which runC has become, handles SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    (name,) = re.findall(r"^Name:\t(.*)$", status, re.M)
    (caught,) = re.findall(r"^SigCgt:\t(.*)$", status, re.M)
    return name == "sh" and bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_ten_containers_survive(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(COUNT)]
    for name in names:
        orlopd.ctr("run", "-d", busybox, name, "sleep", "1000")
    ends = "trap 'exit 23' TERM; while :; do sleep 0.1; done"
    orlopd.ctr("run", "-d", busybox, "brief", "sh", "-c", ends)
    before = _tasks(orlopd)
    orlopd.kill9()
    brief = before["brief"][0]
    orlopd.wait_for(lambda: _listens(brief))
    os.kill(brief, signal.SIGTERM)
    orlopd.wait_for(lambda: not Path(f"/proc/{brief}").exists())
    for name in names:
        assert Path(f"/proc/{before[name][0]}").exists()
    orlopd.start()
    after: dict[str, tuple[int, str]] = {}

    def all_told() -> bool:
        after.clear()
        after.update(_tasks(orlopd))  # without those who do not tell in two seconds
        return after.keys() >= before.keys()

    orlopd.wait_for(all_told)
    assert {name: after[name] for name in names} == {
        name: (before[name][0], "RUNNING") for name in names
    }
    assert after["brief"][1] == "STOPPED"
    assert "exit code 23" in orlopd.ctr("tasks", "rm", "brief").stderr
    orlopd.ctr("containers", "rm", "brief")
    for number, name in enumerate(names):
        shown = orlopd.ctr("tasks", "exec", "--exec-id", f"e{number}", name, "echo", name)
        assert shown.stdout == f"{name}\n"
    for name in names:
        orlopd.ctr("tasks", "kill", "-s", "SIGKILL", name)
    orlopd.wait_for(lambda: all(s == "STOPPED" for _, s in _tasks(orlopd).values()))
    for name in names:
        assert "exit code 137" in orlopd.ctr("tasks", "rm", name).stderr
        orlopd.ctr("containers", "rm", name)


def test_attach_works_after_a_restart(orlopd: Orlopd, busybox: str) -> None:
    loop = "while read x; do echo heard $x; done"
    with subprocess.Popen(
        orlopd.ctr_command("run", busybox, "talker", "sh", "-c", loop),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as first:  # fmt: skip
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write("one\n")
        first.stdin.flush()
        assert first.stdout.readline() == "heard one\n"
        first.kill()  # first: left alone without its daemon, ctr removes its fifos
        orlopd.kill9()
    orlopd.start()
    talks = re.compile(r"talker\s+\d+\s+RUNNING")
    orlopd.wait_for(lambda: bool(talks.search(orlopd.ctr("tasks", "ls").stdout)))
    with subprocess.Popen(
        orlopd.ctr_command("tasks", "attach", "talker"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as second:  # fmt: skip
        assert second.stdin is not None
        assert second.stdout is not None
        second.stdin.write("two\n")
        second.stdin.flush()
        assert second.stdout.readline() == "heard two\n"
        orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "talker")
        second.stdin.close()
        second.wait(20)
    orlopd.ctr("tasks", "rm", "-f", "talker", check=False)
    orlopd.ctr("containers", "rm", "talker")


def test_a_dead_shim_is_reported_once(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", busybox, "orphan", "sleep", "1000")
    pid = _tasks(orlopd)["orphan"][0]
    shim = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
    with hearing(orlopd) as heard:
        subprocess.run(["kill", "-9", str(shim)], check=True)
        orlopd.wait_for(lambda: "/tasks/delete" in heard.topics())
        time.sleep(0.5)  # for a second report, which must not come
        # That it was made and has started may be told late.
        early = ("/tasks/create", "/tasks/start")
        told = [topic for topic in heard.topics("/tasks/") if topic not in early]
        assert told == ["/tasks/exit", "/tasks/delete"]
    assert "orphan" not in _tasks(orlopd)
    assert not _is_alive(pid)
    orlopd.ctr("containers", "rm", "orphan")


def _is_alive(pid: int) -> bool:
    """A zombie is not: it only waits for this machine's init to take note."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.search(r"State:\s+Z", status) is None


def test_a_socket_that_was_left_is_removed_and_no_other(orlopd: Orlopd, busybox: str) -> None:
    """As of a create that was killed before it had forked its shim."""
    orlopd.ctr("run", "-d", busybox, "one", "sleep", "1000")
    orlopd.kill9()
    sockets = orlopd.state / "s"
    alive = set(sockets.iterdir())
    assert len(alive) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(sockets / "0123456789abcdef0123456789abcdef"))
    orlopd.start()
    assert set(sockets.iterdir()) == alive
    assert orlopd.ctr("tasks", "exec", "--exec-id", "e", "one", "echo", "hi").stdout == "hi\n"
    orlopd.ctr("tasks", "rm", "-f", "one")
    orlopd.ctr("containers", "rm", "one")


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_killed_during_a_pull_the_store_stays_whole(
    orlopd: Orlopd, registry: str, delay: float
) -> None:
    name = f"{registry}/test/busybox:latest"
    with subprocess.Popen(
        orlopd.orlop_command("pull", name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as pull:
        time.sleep(0.08 + delay)
        orlopd.kill9()
        pull.wait(20)
    orlopd.start()
    orlopd.orlop("pull", name)
    assert orlopd.orlop("run", "--rm", name, "echo", "whole").stdout == "whole\n"
    snapshots = orlopd.root / "snapshots/overlayfs/snapshots"
    orlopd.wait_for(lambda: len(list(snapshots.iterdir())) == 1)
