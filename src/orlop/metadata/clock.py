"""Time as the database keeps it: UTC nanoseconds since the epoch, as an integer."""

from __future__ import annotations

import time


def now() -> int:
    """The current time in nanoseconds since the epoch."""
    return time.time_ns()
