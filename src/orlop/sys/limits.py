"""What a process may have at once (getrlimit(2))."""

from __future__ import annotations

import resource
from contextlib import suppress

_AT_FIRST = resource.getrlimit(resource.RLIMIT_NOFILE)


def use_all_descriptors() -> None:
    """Have as many descriptors as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_as_at_first(pid: int) -> None:
    """Let a child have as many descriptors as this process had before it took all.

    What it starts inherits its limits, containers among them, and select(2) fails beyond 1024.
    """
    with suppress(OSError):  # it has ended, or changed its user, which is no container's ancestor
        resource.prlimit(pid, resource.RLIMIT_NOFILE, _AT_FIRST)
