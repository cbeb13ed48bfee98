"""Mapped ids: who holds a namespace ends with who needs it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from orlop.sys import idmap
from orlop.sys.process import mark
from tests.patience import wait_for

pytestmark = pytest.mark.root


def test_who_holds_a_namespace_does_not_outlive_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()

    def tell(path: str, _: str) -> None:
        os.write(writer, path.split("/")[2].encode())
        time.sleep(100)

    monkeypatch.setattr(idmap, "_write", tell)
    pid = os.fork()
    if not pid:
        with idmap.IdMapping("0:0:1", "0:0:1").namespace():
            os._exit(1)
    holder = os.read(reader, 20).decode()
    assert mark(int(holder))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: not mark(int(holder)))
    os.close(reader)
    os.close(writer)
