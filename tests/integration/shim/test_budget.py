"""What an idle shim costs: memory and wake-ups."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from orlop.fork.client import ForkServer
from tests.integration.shim.harness import Shim
from tests.rest import settled, switches

pytestmark = pytest.mark.root
OWN_KILOBYTES = 1700
"""Ten shims with a container each, asleep; guards against growth."""


def own(pid: int) -> int:
    """What a process shares with nobody, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


def test_ten_idle_shims(fork_server: ForkServer, folder: Path, rootfs: Path) -> None:
    shims: list[Shim] = []
    try:
        for number in range(10):
            (folder / str(number)).mkdir()
            shims.append(Shim(fork_server, folder / str(number), rootfs))
            shims[-1].client.connect(id="none")
        for number, shim in enumerate(shims):
            name = f"c{number}"
            shim.create(name, ["sleep", "1000"], stdout=shim.fifo("o"), stderr=shim.fifo("e"))
            shim.client.start(id=name)
            shim.daemon.wait_for(2)
        for shim in shims:
            shim.fall_asleep()
        before = [settled(shim.pid) for shim in shims]
        assert statistics.mean(own(shim.pid) for shim in shims) < OWN_KILOBYTES
        time.sleep(1)
        assert [switches(shim.pid) for shim in shims] == before
        for number, shim in enumerate(shims):
            shim.finish(f"c{number}")
            shim.shutdown()
    finally:
        for shim in shims:
            shim.close()
