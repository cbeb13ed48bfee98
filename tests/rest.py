"""Whether a process does anything at all: its context switches tell."""

from __future__ import annotations

import time
from pathlib import Path

from tests.patience import patient


def switches(pid: int) -> list[str]:
    """How often it has gone to sleep, and was preempted."""
    return _seen(pid)[1:]


def settled(pid: int) -> list[str]:
    """The same, once it has come to rest."""
    deadline = time.monotonic() + patient(30)
    before = _seen(pid)
    while True:
        time.sleep(0.3)
        now = _seen(pid)
        if now == before and "S (sleeping)" in now[0]:  # not one that waits for a processor
            return now[1:]
        assert time.monotonic() < deadline, f"process {pid} does not come to rest: {now}"
        before = now


def _seen(pid: int) -> list[str]:
    """Its state, and the counters."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith("State:") or "ctxt_switches" in line]
