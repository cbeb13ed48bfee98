"""Plain tables: columns padded with spaces, as scripts can cut them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from orlop.cli.terminal import printable

_GAP = 3
_UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"))


def show(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print `rows` under `header`."""
    lines = [tuple(header), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width + _GAP) for cell, width in zip(line, widths, strict=True))
        print("".join(cells).rstrip())


def size(count: float) -> str:
    """A number of bytes for people: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def ago(seconds_since_epoch: float) -> str:
    """A past time for people: `3 hours ago`."""
    return f"{passed(seconds_since_epoch)} ago"


def passed(seconds_since_epoch: float) -> str:
    """The time since then, for people: `3 hours`."""
    return duration(max(0.0, time.time() - seconds_since_epoch))


def duration(seconds: float) -> str:
    for length, unit in (*_UNITS, (60, "minute"), (1, "second")):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a second"
