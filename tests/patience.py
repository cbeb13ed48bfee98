"""How long tests wait for what must come: the one place that knows how slow the machine is."""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("ORLOP_TEST_PATIENCE", "1"))
"""What every limit of a test is multiplied with; the virtual machine's tests set it."""


def patient(seconds: float) -> float:
    """A limit in seconds, as it is on this machine."""
    return seconds * FACTOR
