"""Commands that are attached while orlopd goes, and containers whose client goes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from orlop.errors import NotFound
from orlop.wire.services.tasks_pb2 import GetRequest, ListPidsRequest
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing
from tests.killing import kill

pytestmark = pytest.mark.root

_ECHO = "while read -r line; do echo $line; done; echo over; exit 7"


@contextmanager
def _attached(orlopd: Orlopd, *command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        orlopd.orlop_command(*command, "sh", "-c", _ECHO),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        try:
            _echoes(client, "first")
            yield client
        finally:
            client.kill()


def _echoes(client: subprocess.Popen[str], word: str) -> None:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{word}\n")
    client.stdin.flush()
    assert client.stdout.readline() == f"{word}\n"


def _ended(client: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = client.communicate(timeout=60)
    return client.returncode, output, errors


def _nothing_is_left(orlopd: Orlopd) -> bool:
    return (
        orlopd.orlop("ps", "-aq").stdout == ""
        and orlopd.ctr("snapshots", "ls").stdout.count("\n") <= 2
    )


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_goes_on_without_a_daemon(orlopd: Orlopd, busybox: str, killed: bool) -> None:
    with _attached(orlopd, "run", "--rm", "-i", busybox) as client:
        for word in ("second", "third"):
            if killed:
                orlopd.kill9()
            else:
                orlopd.stop()
            _echoes(client, word)
            orlopd.start()
        assert _ended(client) == (7, "over\n", "")
    assert _nothing_is_left(orlopd)


def test_the_end_comes_while_no_daemon_is_there(orlopd: Orlopd, busybox: str) -> None:
    with _attached(orlopd, "run", "--rm", "-i", busybox) as client:
        orlopd.stop()
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.close()
        assert client.stdout.readline() == "over\n"
        orlopd.start()
        assert client.wait(60) == 7
    assert _nothing_is_left(orlopd)


def test_an_exec_goes_on_without_a_daemon(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
    with _attached(orlopd, "exec", "-i", "one") as client:
        orlopd.kill9()
        _echoes(client, "second")
        orlopd.start()
        assert _ended(client) == (7, "over\n", "")
    orlopd.orlop("rm", "-f", "one")


def test_the_status_of_an_exec_outlasts_its_container(orlopd: Orlopd, busybox: str) -> None:
    """The client, which is stopped, hears of the end before it can forget the exec."""
    orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
    with _attached(orlopd, "exec", "-i", "one") as client:
        client.send_signal(signal.SIGSTOP)
        with orlopd.connect() as connection:
            pids = connection.tasks.list_pids(ListPidsRequest(container_id="one")).processes
        (pid,) = {each.pid for each in pids} - {_pid(orlopd)}
        with hearing(orlopd, 'topic=="/tasks/exit"') as heard:
            kill(pid)
            orlopd.wait_for(lambda: heard.topics("/tasks/exit") != [])
        orlopd.orlop("rm", "-f", "one")
        client.send_signal(signal.SIGCONT)
        assert client.wait(60) == 137


_UNTIL_TERM = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"


@contextmanager
def _waiting(orlopd: Orlopd, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A client of a container "one" that ends with 5 at a SIGTERM."""
    with subprocess.Popen(
        orlopd.orlop_command("run", "--name", "one", *options, "sh", "-c", _UNTIL_TERM),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"
            yield client
        finally:
            client.kill()


def _complaint(client: subprocess.Popen[str]) -> str:
    assert client.stderr is not None
    return client.stderr.readline()


def test_a_signal_is_passed_on_when_the_daemon_is_back(orlopd: Orlopd, busybox: str) -> None:
    with _waiting(orlopd, busybox) as client:
        orlopd.kill9()
        client.send_signal(signal.SIGTERM)
        assert "SIGTERM is passed on when it is back" in _complaint(client)
        orlopd.start()
        assert client.wait(60) == 5
    orlopd.orlop("rm", "one")


def test_a_second_signal_ends_a_client_whose_daemon_is_away(orlopd: Orlopd, busybox: str) -> None:
    with _waiting(orlopd, busybox) as client:
        orlopd.kill9()
        client.send_signal(signal.SIGINT)
        assert "SIGINT is passed on when it is back" in _complaint(client)
        client.send_signal(signal.SIGTERM)
        assert client.wait(20) == 128 + signal.SIGTERM
        assert "the process runs on" in _complaint(client)
        orlopd.start()
    assert orlopd.orlop("ps", "-q").stdout == "one\n"
    orlopd.orlop("rm", "-f", "one")


def test_another_task_is_not_waited_for(orlopd: Orlopd, busybox: str) -> None:
    """The one that was run has ended unseen, and was started again before the client looked."""
    with _waiting(orlopd, "--restart", "always", busybox) as client:
        first = _pid(orlopd)
        client.send_signal(signal.SIGSTOP)
        orlopd.kill9()
        kill(first)
        orlopd.start()
        orlopd.wait_for(lambda: _pid(orlopd) not in (0, first))
        client.send_signal(signal.SIGCONT)
        assert client.wait(60) != 0
        assert f"process {first} of container" in _complaint(client)
    orlopd.orlop("rm", "-f", "one")


def _pid(orlopd: Orlopd) -> int:
    with orlopd.connect() as connection, suppress(NotFound):
        return int(connection.tasks.get(GetRequest(container_id="one")).process.pid)
    return 0


@pytest.mark.parametrize("away", [True, False])
def test_rm_holds_when_the_client_is_killed(orlopd: Orlopd, busybox: str, away: bool) -> None:
    with _attached(orlopd, "run", "--rm", "-i", "--name", "one", busybox) as client:
        client.kill()
        client.wait(20)
        assert orlopd.orlop("ps", "-q").stdout == "one\n"  # it goes on, and may be attached to
        if away:
            orlopd.restart()
        orlopd.orlop("kill", "one")
    orlopd.wait_for(lambda: _nothing_is_left(orlopd))


def test_a_client_is_given_its_time(orlopd: Orlopd, busybox: str) -> None:
    """One that is stopped lives: it has the exit status in the end, and nothing stays."""
    with _attached(orlopd, "run", "--rm", "-i", "--name", "one", busybox) as client:
        client.send_signal(signal.SIGSTOP)
        orlopd.orlop("kill", "one")
        orlopd.wait_for(lambda: "Exited (137)" in orlopd.orlop("ps", "-a").stdout)
        orlopd.restart()
        assert "one" in orlopd.orlop("ps", "-a").stdout
        client.send_signal(signal.SIGCONT)
        assert client.wait(60) == 137
    orlopd.wait_for(lambda: _nothing_is_left(orlopd))
