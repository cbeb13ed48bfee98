"""Start, stop, pause, wait: containers that are there already, by the orlop command."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from orlop.client import containers
from orlop.wire.services import tasks_pb2
from orlop.wire.task_types_pb2 import PAUSED, RUNNING, STOPPED
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


@pytest.fixture
def sleeper(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    orlopd.orlop("run", "-d", "--name", "sleeper", busybox, "sh", "-c", "echo up; sleep 1000")
    yield "sleeper"
    orlopd.orlop("rm", "-f", "sleeper", check=False)


def _status(orlopd: Orlopd, name: str) -> int:
    with orlopd.connect() as connection:
        request = tasks_pb2.GetRequest(container_id=name)
        return int(connection.tasks.get(request).process.status)


def _labels(orlopd: Orlopd, name: str) -> dict[str, str]:
    with orlopd.connect() as connection:
        found = containers.get(connection, name).labels
        return {key.partition("restart.")[2]: found[key] for key in found if "restart." in key}


def test_stop_start_restart(orlopd: Orlopd, sleeper: str) -> None:
    def ups(count: int) -> None:
        orlopd.wait_for(lambda: orlopd.orlop("logs", sleeper).stdout == "up\n" * count)

    ups(1)
    refused = orlopd.orlop("start", sleeper, check=False)
    assert refused.returncode == 1
    assert f'container "{sleeper}" runs already' in refused.stderr
    assert orlopd.orlop("stop", "-t", "0.2", sleeper).stdout == f"{sleeper}\n"
    assert _status(orlopd, sleeper) == STOPPED
    orlopd.orlop("stop", sleeper)  # again
    assert orlopd.orlop("start", sleeper).stdout == f"{sleeper}\n"
    assert _status(orlopd, sleeper) == RUNNING
    ups(2)
    orlopd.orlop("restart", "-t", "0.2", sleeper)
    assert _status(orlopd, sleeper) == RUNNING
    ups(3)
    both = orlopd.orlop("start", "nobody", sleeper, check=False)
    assert both.returncode == 1
    assert "nobody" in both.stderr


def test_pause_and_unpause(orlopd: Orlopd, sleeper: str) -> None:
    orlopd.orlop("pause", sleeper)
    assert _status(orlopd, sleeper) == PAUSED
    assert "cannot pause a paused process" in orlopd.orlop("pause", sleeper, check=False).stderr
    orlopd.orlop("unpause", sleeper)
    assert _status(orlopd, sleeper) == RUNNING
    assert orlopd.orlop("unpause", sleeper, check=False).returncode == 1


def test_wait(orlopd: Orlopd, sleeper: str, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "brief", busybox, "sh", "-c", "exit 23")
    with subprocess.Popen(
        orlopd.orlop_command("wait", "brief", sleeper), stdout=subprocess.PIPE, text=True
    ) as waiting:
        orlopd.orlop("kill", sleeper)
        output, _ = waiting.communicate(timeout=20)
    assert output == "23\n137\n"
    assert orlopd.orlop("wait", "nobody", check=False).returncode == 1
    orlopd.orlop("rm", "brief")


def test_top(orlopd: Orlopd, sleeper: str) -> None:
    shown = orlopd.orlop("top", sleeper).stdout
    assert "PID" in shown.splitlines()[0]
    assert "sleep 1000" in shown
    orlopd.wait_for(lambda: "sh -c" not in orlopd.orlop("top", sleeper).stdout)
    for options in (("aux",), ("-ef",), ("-eo", "pid,args"), ("-o", "pid,args"), ("axm",)):
        header, *rows = orlopd.orlop("top", sleeper, *options).stdout.splitlines()
        assert "PID" in header
        assert len(rows) == (2 if "axm" in options else 1), rows  # a process, and its thread
        assert "sleep 1000" in rows[0]
    for options in (("-o", "comm="), ("-eo", "comm"), ("-e", "--no-headers")):
        refused = orlopd.orlop("top", sleeper, *options, check=False)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert "ask for it by -o pid" in refused.stderr
    assert "ask for it first" in orlopd.orlop(
        "top", sleeper, "-eo", "lstart,pid", check=False
    ).stderr  # fmt: skip
    assert "ps: " in orlopd.orlop("top", sleeper, "--no-such", check=False).stderr
    orlopd.orlop("kill", sleeper)
    orlopd.orlop("wait", sleeper)
    assert "has no process" in orlopd.orlop("top", sleeper, check=False).stderr


def test_restart_policies(orlopd: Orlopd, busybox: str) -> None:
    run = ("run", "-d", "--name", "again", "--restart", "always", busybox)
    # The third run stays, so that nothing is being started while it is stopped.
    script = "echo >> /n; echo up; [ $(wc -l < /n) -ne 3 ] || exec sleep 1000; sleep 0.1"
    orlopd.orlop(*run, "sh", "-c", script)
    orlopd.wait_for(lambda: orlopd.orlop("logs", "again").stdout.count("up") >= 3)
    orlopd.orlop("stop", "-t", "0.1", "again")
    labels = _labels(orlopd, "again")
    assert labels["explicitly-stopped"] == "true"
    assert "status" not in labels
    orlopd.wait_for(lambda: _status(orlopd, "again") == STOPPED)
    orlopd.orlop("start", "again")
    assert _labels(orlopd, "again")["status"] == "running"
    orlopd.wait_for(lambda: int(_labels(orlopd, "again").get("count", 0)) >= 2)
    orlopd.orlop("stop", "-t", "0.1", "again")
    orlopd.wait_for(lambda: orlopd.orlop("rm", "-f", "again", check=False).returncode == 0)


def test_a_start_gives_all_tries_again(orlopd: Orlopd, busybox: str) -> None:
    run = ("run", "-d", "--name", "frail", "--restart", "on-failure:2", busybox)
    orlopd.orlop(*run, "sh", "-c", "echo up; exit 3")
    _await_end_after(orlopd, "frail", 3)
    orlopd.orlop("start", "frail")
    _await_end_after(orlopd, "frail", 6)
    orlopd.orlop("rm", "frail")


def _await_end_after(orlopd: Orlopd, name: str, starts: int) -> None:
    orlopd.wait_for(lambda: orlopd.orlop("logs", name).stdout == "up\n" * starts)
    orlopd.wait_for(lambda: _status(orlopd, name) == STOPPED)
    assert _labels(orlopd, name)["count"] == "2"


def test_who_runs_always_comes_back_with_the_daemon(orlopd: Orlopd, busybox: str) -> None:
    for policy in ("always", "unless-stopped"):
        orlopd.orlop("run", "-d", "--name", policy, "--restart", policy, busybox, "sleep", "1000")
        orlopd.orlop("stop", "-t", "0.1", policy)
    orlopd.restart()
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-q").stdout == "always\n")
    assert _labels(orlopd, "always")["explicitly-stopped"] == "false"
    assert _labels(orlopd, "unless-stopped")["explicitly-stopped"] == "true"
    assert _status(orlopd, "unless-stopped") == STOPPED
    orlopd.orlop("rm", "-f", "always", "unless-stopped")


def test_another_policy_later(orlopd: Orlopd, busybox: str) -> None:
    script = "echo up; sleep 0.1; read x"
    orlopd.orlop("run", "-d", "-i", "--name", "one", busybox, "sh", "-c", script)
    orlopd.orlop("update", "--restart", "on-failure:1", "one")
    assert _labels(orlopd, "one") == {"status": "running", "policy": "on-failure:1"}
    orlopd.wait_for(lambda: orlopd.orlop("logs", "one").stdout == "up\n")
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "one")
    orlopd.wait_for(lambda: orlopd.orlop("logs", "one").stdout == "up\n" * 2)
    orlopd.wait_for(lambda: _status(orlopd, "one") == RUNNING)
    orlopd.orlop("update", "--restart", "no", "one")
    assert not {"status", "policy"} & set(_labels(orlopd, "one"))
    orlopd.orlop("kill", "one")
    orlopd.orlop("wait", "one")
    # It has ended: a policy starts nothing, before somebody does.
    orlopd.orlop("update", "--restart", "always", "one")
    assert "status" not in _labels(orlopd, "one")
    orlopd.orlop("start", "one")
    assert _labels(orlopd, "one")["status"] == "running"
    orlopd.orlop("stop", "-t", "0.1", "one")
    orlopd.orlop("update", "--restart", "no", "one")
    orlopd.orlop("start", "one")
    assert "status" not in _labels(orlopd, "one")
    refused = orlopd.orlop("update", "--restart", "often", "one", check=False)
    assert "is none of" in refused.stderr
    orlopd.orlop("rm", "-f", "one")


def test_a_policy_of_what_is_run_attached(orlopd: Orlopd, busybox: str) -> None:
    """Whoever is attached sees one run, with its status; the others follow."""
    run = ("run", "--name", "one", "--restart", "on-failure:2", busybox, "sh", "-c")
    done = orlopd.orlop(*run, "echo up; exit 3", check=False)
    assert (done.returncode, done.stdout) == (3, "up\n")
    orlopd.wait_for(lambda: orlopd.orlop("logs", "one").stdout == "up\n" * 3)
    orlopd.wait_for(lambda: _status(orlopd, "one") == STOPPED)
    orlopd.orlop("rm", "one")


def test_an_interrupt_of_who_is_attached_is_meant(orlopd: Orlopd, busybox: str) -> None:
    script = "trap 'exit 7' INT; echo up; while :; do sleep 0.05; done"
    run = ("run", "--name", "one", "--restart", "always", busybox, "sh", "-c", script)
    with subprocess.Popen(orlopd.orlop_command(*run), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        client.send_signal(signal.SIGINT)
        assert client.wait(30) == 7
    assert _labels(orlopd, "one")["explicitly-stopped"] == "true"
    assert _status(orlopd, "one") == STOPPED
    orlopd.orlop("rm", "one")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-d", "--restart", "often"), 'restart policy "often" is none of'),
        (("-d", "--restart", "on-failure:x"), "is none of"),
        (("-d", "--restart", "always:3"), "is none of"),
        (("-d", "--rm", "--restart", "always"), "exclude each other"),
    ],
)
def test_policies_that_make_no_sense(
    orlopd: Orlopd, busybox: str, options: tuple[str, ...], words: str
) -> None:
    refused = orlopd.orlop("run", *options, busybox, "true", check=False)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""
