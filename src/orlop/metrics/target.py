"""What a scrape asks of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orlop.metrics.family import Family

FILESYSTEM = (
    Family("container_fs_usage_bytes", "What the container has written to its filesystem, on disk"),
    Family("container_fs_inodes", "Files, folders and so on that it has there"),
    Family("container_fs_measured_seconds", "When that was measured, since 1970"),
    Family("container_fs_limit_bytes", "What it may have there, where a project quota limits it"),
)
FACTS = (
    Family("orlop_container_state", "1 for the state that the container's task is in", ("state",)),
    Family("orlop_container_restarts_total", "How often the container was started again"),
    Family(
        "orlop_container_health", "1 for what the container's healthcheck last found", ("status",)
    ),
    *FILESYSTEM,
)


class Target(NamedTuple):
    """A container. `labels` are those of all its samples, as they are written between braces.

    It is looked at by its first process, `pid`, or has told its `statistics`: the name of the
    message and, in base 64, the `message`. Without either there is nothing but `facts`: metric,
    labels beyond the others, value. `health` is the file in which its health is; "" is none.
    """

    id: str
    labels: str
    pid: int = 0
    facts: Sequence[tuple[str, str, float]] = ()
    health: str = ""
    statistics: str = ""
    message: str = ""
