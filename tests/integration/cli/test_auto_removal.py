"""Which containers the daemon removes when they end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from orlop.cli.main import main
from orlop.client import autoremoval, containers, labels
from orlop.client.autoremoval import put_off
from orlop.errors import FailedPrecondition
from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = pytest.mark.root

_LABEL = "orlop/auto-remove"
_SLEEPER = ("sh", "-c", "echo up >> /starts; sleep 1000")


def test_a_label_that_says_no_removes_nothing(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "no", "-l", f"{_LABEL}=false", busybox, "true")
    orlopd.wait_for(lambda: "Exited (0)" in orlopd.orlop("ps", "-a").stdout)
    orlopd.orlop("run", "-d", "--rm", "--name", "yes", busybox, "true")  # its end is heard later
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "no\n")
    orlopd.orlop("update", "--restart", "always", "no")  # it is not one of those with --rm
    orlopd.orlop("update", "--restart", "no", "no")
    orlopd.restart()
    orlopd.orlop("run", "-d", "--rm", "--name", "yes", busybox, "true")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "no\n")
    orlopd.orlop("rm", "no")


def test_a_restart_is_no_end(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--rm", "--name", "web", busybox, *_SLEEPER)
    _starts(orlopd, 1)
    for number in (2, 3):
        orlopd.orlop("restart", "-t", "0", "web")
        _starts(orlopd, number)
    refused = orlopd.orlop("restart", "--signal", "NONE", "web", check=False)
    assert refused.returncode == 1
    orlopd.orlop("stop", "-t", "0", "web")
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def test_a_restart_is_no_end_to_an_attached_client(orlopd: Orlopd, busybox: str) -> None:
    with _attached(orlopd, busybox) as client:
        _starts(orlopd, 1)
        orlopd.orlop("restart", "-t", "0", "web")
        assert client.wait(patient(20)) == 137
    _starts(orlopd, 2)
    orlopd.orlop("stop", "-t", "0", "web")
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def test_a_client_that_sees_the_end_late_leaves_what_was_started_again(
    orlopd: Orlopd, busybox: str
) -> None:
    with _attached(orlopd, busybox) as client:
        _starts(orlopd, 1)
        client.send_signal(signal.SIGSTOP)
        orlopd.orlop("restart", "-t", "0", "web")
        client.send_signal(signal.SIGCONT)
        assert client.wait(patient(20)) == 137
    _starts(orlopd, 2)
    orlopd.orlop("stop", "-t", "0", "web")
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def test_the_label_is_read_again_before_a_removal(orlopd: Orlopd, busybox: str) -> None:
    with _attached(orlopd, busybox) as client:
        client.send_signal(signal.SIGSTOP)
        orlopd.orlop("stop", "-t", "0", "web")  # from here on the daemon waits for the client
        with orlopd.connect() as connection:
            labels.change(connection, "web", {_LABEL: "false"})
        client.kill()
    orlopd.orlop("run", "-d", "--rm", "--name", "other", busybox, "sleep", "5")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "web\n")  # longer than its patience
    orlopd.orlop("rm", "web")


def test_the_exit_status_is_the_containers_when_it_cannot_be_removed(
    orlopd: Orlopd,
    busybox: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise FailedPrecondition('container "web" is running')

    monkeypatch.setattr(autoremoval, "remove", refuse)
    _, *rest = orlopd.orlop_command("run", "--rm", "--name", "web", busybox, "sh", "-c", "exit 3")
    assert main(rest) == 3
    assert 'container "web" is running' in capfd.readouterr().err
    orlopd.orlop("rm", "web")


def test_a_restart_that_is_killed_leaves_it_to_the_daemon(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--rm", "--name", "web", busybox, *_SLEEPER)
    _starts(orlopd, 1)
    with subprocess.Popen(orlopd.orlop_command("restart", "-t", "1000", "web")) as restart:
        orlopd.wait_for(lambda: _label(orlopd) != "true")
        restart.kill()
    orlopd.orlop("stop", "-t", "0", "web")
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def test_a_restart_that_fails_is_an_end(orlopd: Orlopd, busybox: str) -> None:
    sleeper = ("sh", "-c", "rm /bin/sh; echo up >> /starts; sleep 1000")
    orlopd.orlop("run", "-d", "--rm", "--name", "web", busybox, *sleeper)
    _starts(orlopd, 1)
    assert orlopd.orlop("restart", "-t", "0", "web", check=False).returncode == 1
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def test_of_two_restarts_the_last_to_end_is_waited_for(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--rm", "--name", "web", busybox, *_SLEEPER)
    _starts(orlopd, 1)
    with orlopd.connect() as connection, ExitStack() as first, ExitStack() as second:
        for each in (first, second):
            each.enter_context(put_off(connection, containers.get(connection, "web")))
        first.close()
        orlopd.orlop("stop", "-t", "0", "web")
        orlopd.orlop("run", "-d", "--rm", "--name", "other", busybox, "sleep", "5")
        orlopd.wait_for(lambda: orlopd.orlop("ps", "-aq").stdout == "web\n")  # it had its time
    orlopd.wait_for(lambda: not orlopd.orlop("ps", "-aq").stdout)


def _label(orlopd: Orlopd) -> str:
    with orlopd.connect() as connection:
        return containers.get(connection, "web").labels.get(_LABEL, "")


@contextmanager
def _attached(orlopd: Orlopd, busybox: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that has run "web" with `--rm`, and stays."""
    command = orlopd.orlop_command("run", "--rm", "--name", "web", busybox, *_SLEEPER)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as client:
        orlopd.wait_for(lambda: orlopd.orlop("ps", "-q").stdout == "web\n")
        yield client


def _starts(orlopd: Orlopd, number: int) -> None:
    """Wait until the container has been started so often; its files have seen all of it."""
    orlopd.wait_for(
        lambda: orlopd.orlop("exec", "web", "cat", "/starts", check=False).stdout == "up\n" * number
    )
