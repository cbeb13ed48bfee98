"""How long tests wait for what must come: the one place that knows how slow the machine is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

FACTOR = float(os.environ.get("ORLOP_TEST_PATIENCE", "1"))
"""What every limit of a test is multiplied with; the virtual machine's tests set it."""


def patient(seconds: float) -> float:
    """A limit in seconds, as it is on this machine."""
    return seconds * FACTOR


def wait_for(condition: Callable[[], bool], timeout: float = 30) -> None:
    """Wait until a condition holds; fails the test if it does not."""
    deadline = time.monotonic() + patient(timeout)
    while not condition():
        assert time.monotonic() < deadline, f"gave up after {timeout} s"
        time.sleep(0.02)
