"""Moments on the command line: dates, Unix times, and how long ago."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import suppress

from orlop.oci.durations import nanoseconds


def moment(text: str) -> int:
    """`2026-11-25T18:00:00Z`, `1790000000.5` or `10m` (ago), as Unix time in nanoseconds.

    A date without a zone is of this machine's.
    """
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0") or "0")
    with suppress(ValueError):
        return time.time_ns() - nanoseconds(text)
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(text).timestamp() * 10**6) * 1000
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no moment such as 2026-11-25T18:00:00Z, 1790000000 or 10m'
        ) from None


def duration(text: str) -> int:
    """`1m30s` in nanoseconds, as Go writes it; `0` needs no unit."""
    try:
        return nanoseconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
