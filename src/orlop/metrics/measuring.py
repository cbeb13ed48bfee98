"""The worker that finds out how much containers have written to their filesystems."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from orlop.fork.memory import read_all
from orlop.sys.usage import disk_usage

AT_ONCE = 64
"""Results that are told together."""
_LEISURE = 19
_SECOND = 1.0


def measure(args: dict[str, Any], fds: list[int], report: Callable[[Any], None]) -> None:
    """Job of a `Worker`: the folders are in the file `fds[0]`, a JSON list.

    Reports lists of: the folder's number, bytes, inodes, seconds that it took; bytes are -1 where a
    folder cannot be read. Everything else that runs on this machine comes first.
    """
    os.nice(_LEISURE)
    folders = json.loads(read_all(fds[0]))
    found: list[tuple[int, int, int, float]] = []
    told = time.monotonic()
    for number, folder in enumerate(folders):
        began = time.monotonic()
        try:
            size, inodes = disk_usage(folder)
        except OSError:
            size, inodes = -1, 0
        now = time.monotonic()
        found.append((number, size, inodes, now - began))
        if len(found) >= AT_ONCE or now - told > _SECOND:
            report(found)
            found, told = [], now
    report(found)
