"""Output that cannot be written, or not at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orlop.cli import session

# A command that prints a little, which is written at its end, or much.
_COMMAND = """
import sys
from types import SimpleNamespace
from orlop.cli import main
count = int(sys.argv[1])
command = SimpleNamespace(NEEDS_DAEMON=False, FAILURE=125, run=lambda _: print("x" * count) or 0)
sys.exit(main._run(command, SimpleNamespace(), SimpleNamespace(address="")))
"""


@pytest.mark.parametrize("count", [1, 1 << 20])
def test_a_full_disk_is_told_in_a_line(count: int) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, str(count)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (125, "orlop: no space left on device\n")


def test_a_container_s_output_waits_for_room_where_writes_do_not() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=session._write_all, args=(write, data))
    writer.start()
    time.sleep(0.1)  # until there is none
    received = bytearray()
    while len(received) < len(data) and writer.is_alive():
        received += os.read(read, 1 << 16)
    writer.join(10)
    os.close(write)
    received += os.read(read, 1 << 20)
    os.close(read)
    assert received == data
