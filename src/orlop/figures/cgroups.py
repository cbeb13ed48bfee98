"""The statistics of either cgroup version, in one form."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from orlop.wire import cgroups_v1_pb2 as v1
from orlop.wire import cgroups_v2_pb2 as v2

_UNLIMITED = 1 << 60
"""What is more is the kernel's way to say that there is no limit."""


class Figures(NamedTuple):
    """Processor time in nanoseconds; memory, and what block devices read and wrote, in bytes.

    A limit of 0 is none.
    """

    cpu: int
    memory: int
    memory_limit: int
    pids: int
    pids_limit: int
    read: int
    written: int


def of_type(name: str, data: bytes) -> Figures | None:
    """Of a message by its full name; None for statistics of another kind, or that do not parse."""
    for kind in (v1.Metrics, v2.Metrics):
        if kind.DESCRIPTOR.full_name == name:
            try:
                return of_message(kind.FromString(data))
            except DecodeError:
                return None
    return None


def of_message(statistics: Message) -> Figures:
    """`statistics` is `io.containerd.cgroups.v1.Metrics` or that of v2."""
    return _v1(statistics) if isinstance(statistics, v1.Metrics) else _v2(statistics)


def _v1(found: Any) -> Figures:
    memory = found.memory.usage
    read = written = 0
    for entry in found.blkio.io_service_bytes_recursive:
        if entry.op == "Read":
            read += entry.value
        elif entry.op == "Write":
            written += entry.value
    return Figures(
        found.cpu.usage.total,
        # As free(1) does: what can be dropped at once is not in use.
        memory.usage - min(found.memory.total_inactive_file, memory.usage),
        _limit(memory.limit),
        found.pids.current,
        _limit(found.pids.limit),
        read,
        written,
    )


def _v2(found: Any) -> Figures:
    usage = found.memory.usage
    return Figures(
        found.cpu.usage_usec * 1000,
        usage - min(found.memory.inactive_file, usage),
        _limit(found.memory.usage_limit),
        found.pids.current,
        _limit(found.pids.limit),
        sum(each.rbytes for each in found.io.usage),
        sum(each.wbytes for each in found.io.usage),
    )


def _limit(value: int) -> int:
    return 0 if value >= _UNLIMITED else value
