"""Whether a process does anything at all: its context switches tell."""

from __future__ import annotations

import time
from pathlib import Path

from tests.patience import patient


def switches(pid: int) -> list[str]:
    """How often it has gone to sleep, and was preempted."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if "ctxt_switches" in line]


def settled(pid: int) -> list[str]:
    """The same, once it has come to rest."""
    deadline = time.monotonic() + patient(30)
    before = switches(pid)
    while True:
        time.sleep(0.3)
        now = switches(pid)
        if now == before and "\nState:\tS" in Path(f"/proc/{pid}/status").read_text():
            return now  # one that sleeps: who waits for a processor shows the same figures
        assert time.monotonic() < deadline, f"process {pid} does not come to rest: {now}"
        before = now
