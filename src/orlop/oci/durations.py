"""Durations as Go writes them, and with it Dockerfiles, hosts.toml and command lines."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
          "h": 3600 * 10**9}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(f"(?:{_PART.pattern})+")


def nanoseconds(text: str) -> int:
    """`1m30s`, `1.5h`; `0` needs no unit. Raises ValueError for anything else."""
    if text == "0":
        return 0
    if not _WHOLE.fullmatch(text):
        raise ValueError(f'"{text}" is no duration such as 30s or 1m30s')
    return sum(round(float(count) * _UNITS[unit]) for count, unit in _PART.findall(text))
