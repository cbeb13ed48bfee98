"""Moments on the command line: dates, Unix times, and how long ago."""

from __future__ import annotations

import argparse
import re
import time

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
          "h": 3600 * 10**9}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_DURATION = re.compile(f"(?:{_PART.pattern})+")


def moment(text: str) -> int:
    """`2026-11-25T18:00:00Z`, `1790000000.5` or `10m` (ago), as Unix time in nanoseconds.

    A date without a zone is of this machine's.
    """
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0") or "0")
    if _DURATION.fullmatch(text):
        return time.time_ns() - duration(text)
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(text).timestamp() * 10**6) * 1000
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no moment such as 2026-11-25T18:00:00Z, 1790000000 or 10m'
        ) from None


def duration(text: str) -> int:
    """`1m30s` in nanoseconds, as Go writes it; `0` needs no unit."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no duration such as 30s or 1m30s')
    return sum(round(float(count) * _UNITS[unit]) for count, unit in _PART.findall(text))
