"""Versions of the CNI spec: which are spoken here, and which one a chain is run with."""

from __future__ import annotations

import re

SUPPORTED = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CHECK = "0.4.0"
"""The first with CHECK, and with the result of ADD for DEL."""
GC = "1.1.0"
"""The first with GC and STATUS."""
_FORM = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def key(version: str) -> tuple[int, int, int]:
    """To compare by; ValueError for what is no version."""
    found = _FORM.fullmatch(version)
    if found is None:
        raise ValueError(f'"{version}" is no version of the CNI spec')
    return int(found[1]), int(found[2]), int(found[3] or 0)


def at_least(version: str, other: str) -> bool:
    return key(version) >= key(other)
