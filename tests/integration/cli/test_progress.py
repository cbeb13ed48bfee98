"""Bars on a terminal, and streams beside a call that hold up nobody."""

from __future__ import annotations

import os
import pty
import time
from contextlib import closing

import pytest

from orlop.client.auth import AuthStream
from tests.daemon_fixture import Orlopd
from tests.patience import patient
from tests.slow_proxy import SlowProxy

pytestmark = pytest.mark.root

_HIDE, _SHOW = b"\x1b[?25l", b"\x1b[?25h"


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_terminal_is_left_whole(orlopd: Orlopd, registry: str, interrupted: bool) -> None:
    # Slow enough for whoever interrupts it to come before its end.
    with closing(SlowProxy(registry, 2e5 if interrupted else 1e9)) as proxy:
        _pull_on_a_terminal(orlopd, f"{proxy.host}/test/busybox:latest", interrupted)


def _pull_on_a_terminal(orlopd: Orlopd, image: str, interrupted: bool) -> None:
    command = orlopd.orlop_command("pull", image)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    printed = b""
    try:
        while data := _read(terminal):
            if interrupted and _HIDE not in printed and _HIDE in printed + data:
                os.write(terminal, b"\x03")
            printed += data
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(terminal)
    assert printed.count(_HIDE) == printed.count(_SHOW) == 1
    assert status == (130 if interrupted else 0)
    if not interrupted:
        assert b"total" in printed
        assert b"layer-sha256:" in printed


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_stream_for_credentials_ends_at_once(orlopd: Orlopd) -> None:
    with orlopd.connect() as connection:
        stream = AuthStream(connection, lambda _host, _name: None)
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < patient(10)
