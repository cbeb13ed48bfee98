"""Times in the label `containerd.io/gc.expire`, RFC 3339."""

from __future__ import annotations

from datetime import datetime

EXPIRE = "containerd.io/gc.expire"


def has_passed(text: str, now: float) -> bool:
    """Whether the time is over at `now`, in Unix seconds; what is no time never ends."""
    end = moment(text)
    return end is not None and end < now


def moment(text: str) -> float | None:
    """The time in Unix seconds; None for what is no time."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo else None
