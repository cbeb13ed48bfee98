"""What a process may have at once (getrlimit(2))."""

from __future__ import annotations

import resource


def use_all_descriptors() -> None:
    """Have as many descriptors as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
