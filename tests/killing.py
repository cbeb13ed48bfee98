"""Signals to processes that a test has found by looking for them."""

from __future__ import annotations

import os
import signal


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process; 0, as they say who found nobody, would be the group of the tests."""
    assert pid > 1, "there is nobody to signal"
    os.kill(pid, number)
