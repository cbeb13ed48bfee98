"""`orlop top` without a container, on a terminal as a user has it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from orlop.client.names import LABEL
from tests.daemon_fixture import Orlopd
from tests.terminal_fixture import Terminal

pytestmark = pytest.mark.root

_ENTER, _LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def two(orlopd: Orlopd, busybox: str) -> Iterator[Orlopd]:
    orlopd.orlop(
        "run", "-d", "--name", "busy", "-m", "64m", busybox, "sh", "-c", "while :; do :; done"
    )
    orlopd.orlop("run", "-d", "--name", "idle", busybox, "sh", "-c",
                 "dd if=/dev/zero of=/dev/shm/held bs=1M count=20; sleep 1000")  # fmt: skip
    yield orlopd
    orlopd.orlop("rm", "-f", "busy")
    orlopd.orlop("rm", "-f", "idle", check=False)


def _await_order(terminal: Terminal, first: bytes, second: bytes) -> None:
    """Wait for a picture in which one container is above another."""
    while True:
        body = terminal.expect(b"q quit")
        if first in body and second in body.partition(first)[2]:
            return


def test_sorts_as_told_and_leaves_the_terminal_as_it_was(two: Orlopd) -> None:
    script = 'stty rows 24 cols 120; stty -g; "$@"; echo "status $?"; stty -g; echo over'
    with Terminal(["/bin/sh", "-c", script, "top", *two.orlop_command("top")]) as terminal:
        mode = terminal.expect(_ENTER).split()[0]
        terminal.expect(b"2 containers running, CPU ")
        terminal.expect("↓CPU".encode())
        shown = terminal.expect(b"q quit")
        assert re.search(rb"busy +\d+\.\d% .* 64\.0 MiB ", shown), shown
        terminal.type(b"m")
        terminal.expect("↓MEMORY".encode())
        _await_order(terminal, b"idle", b"busy")
        terminal.type(b"r")
        terminal.expect("↑MEMORY".encode())
        _await_order(terminal, b"busy", b"idle")
        terminal.type(b"\x1b[C\x1bOC")
        terminal.expect("↓NET IN".encode())
        terminal.type(b"a")
        terminal.expect("↑CONTAINER".encode())
        _await_order(terminal, b"busy", b"idle")
        terminal.type(b"c")
        # It is live: a container that ends is gone from the table, by itself.
        two.orlop("rm", "-f", "idle")
        terminal.expect(b"1 container running, CPU ")
        terminal.resize(5, 40)
        terminal.expect("↓CPU     MEMORY  PIDS".encode())
        terminal.type(b"q")
        terminal.expect(_LEAVE)
        after = terminal.expect(b"over").split()
        assert after == [b"status", b"0", mode]
        assert terminal.wait() == 0


def test_signals_and_names_leave_the_terminal_alone(two: Orlopd, busybox: str) -> None:
    two.ctr("run", "-d", "--label", f"{LABEL}=ev\x1b[2Jil", busybox, "odd", "sleep", "1000")
    try:
        for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
            with Terminal(two.orlop_command("top")) as terminal:
                terminal.expect(_ENTER)
                terminal.expect(b"ev?[2Jil")
                os.kill(terminal.pid, number)
                terminal.expect(_LEAVE)
                assert terminal.wait() == status
    finally:
        two.ctr("task", "rm", "-f", "odd")
        two.ctr("container", "rm", "odd")


def test_needs_a_terminal(orlopd: Orlopd) -> None:
    done = orlopd.orlop("top", check=False)
    assert done.returncode == 1
    assert "no terminal" in done.stderr
