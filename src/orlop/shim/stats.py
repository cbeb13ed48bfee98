"""Statistics of a container, read straight from its cgroup files.

The messages are `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`; which
one depends on the host. A file that a kernel lacks leaves its fields at zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from orlop.errors import NotFound
from orlop.shim.cgroup import Cgroup
from orlop.shim.files import read_or_empty
from orlop.wire import cgroups_v1_pb2 as v1
from orlop.wire import cgroups_v2_pb2 as v2

UNLIMITED = 2**64 - 1
NANOSECONDS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

# Keys of memory.stat on cgroup v1 whose fields have another name.
_V1_MEMORY_NAMES = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
    "total_pgpgin": "total_pg_pg_in",
    "total_pgpgout": "total_pg_pg_out",
    "total_pgfault": "total_pg_fault",
    "total_pgmajfault": "total_pg_maj_fault",
}
_V1_MEMORY_ENTRIES = {
    "usage": "memory",
    "swap": "memory.memsw",
    "kernel": "memory.kmem",
    "kernel_tcp": "memory.kmem.tcp",
}
_V1_BLKIO = {
    "io_service_bytes_recursive": "io_service_bytes_recursive",
    "io_serviced_recursive": "io_serviced_recursive",
    "io_queued_recursive": "io_queued_recursive",
    "io_service_time_recursive": "io_service_time_recursive",
    "io_wait_time_recursive": "io_wait_time_recursive",
    "io_merged_recursive": "io_merged_recursive",
    "io_time_recursive": "time_recursive",
    "sectors_recursive": "sectors_recursive",
}


def collect(cgroup: Cgroup) -> Message:
    """The statistics message of a container; NotFound if its cgroup does not exist (any more)."""
    if not cgroup.exists():
        raise NotFound("cgroup does not exist")
    return collect_v2(cgroup.unified) if cgroup.unified is not None else collect_v1(cgroup)


def collect_v1(cgroup: Cgroup) -> v1.Metrics:
    metrics = v1.Metrics()
    if folder := cgroup.folder("pids"):
        metrics.pids.current = _number(f"{folder}/pids.current")
        metrics.pids.limit = _number(f"{folder}/pids.max", unlimited=0)
    _v1_cpu(cgroup, metrics.cpu)
    if folder := cgroup.folder("memory"):
        _v1_memory(folder, metrics)
    if folder := cgroup.folder("blkio"):
        _v1_blkio(folder, metrics.blkio)
    if folder := cgroup.folder("hugetlb"):
        for size in _page_sizes(folder):
            prefix = f"hugetlb.{size}"
            metrics.hugetlb.add(
                pagesize=size,
                usage=_number(f"{folder}/{prefix}.usage_in_bytes"),
                max=_number(f"{folder}/{prefix}.max_usage_in_bytes"),
                failcnt=_number(f"{folder}/{prefix}.failcnt"),
            )
    if folder := cgroup.folder("rdma"):
        _rdma(folder, metrics.rdma)
    return metrics


def _v1_cpu(cgroup: Cgroup, cpu: v1.CPUStat) -> None:
    if folder := cgroup.folder("cpuacct"):
        cpu.usage.total = _number(f"{folder}/cpuacct.usage")
        cpu.usage.per_cpu.extend(map(int, read_or_empty(f"{folder}/cpuacct.usage_percpu").split()))
        ticks = dict(_pairs(f"{folder}/cpuacct.stat"))
        cpu.usage.user = ticks.get("user", 0) * NANOSECONDS_PER_TICK
        cpu.usage.kernel = ticks.get("system", 0) * NANOSECONDS_PER_TICK
    if folder := cgroup.folder("cpu"):
        throttling = dict(_pairs(f"{folder}/cpu.stat"))
        cpu.throttling.periods = throttling.get("nr_periods", 0)
        cpu.throttling.throttled_periods = throttling.get("nr_throttled", 0)
        cpu.throttling.throttled_time = throttling.get("throttled_time", 0)


def _v1_memory(folder: str, metrics: v1.Metrics) -> None:
    pairs = _pairs(f"{folder}/memory.stat")
    _fill(metrics.memory, ((_V1_MEMORY_NAMES.get(key, key), value) for key, value in pairs))
    for name, prefix in _V1_MEMORY_ENTRIES.items():
        if os.path.exists(f"{folder}/{prefix}.usage_in_bytes"):
            entry = getattr(metrics.memory, name)
            entry.usage = _number(f"{folder}/{prefix}.usage_in_bytes")
            entry.max = _number(f"{folder}/{prefix}.max_usage_in_bytes")
            entry.limit = _number(f"{folder}/{prefix}.limit_in_bytes")
            entry.failcnt = _number(f"{folder}/{prefix}.failcnt")
    _fill(metrics.memory_oom_control, _pairs(f"{folder}/memory.oom_control"))


def _v1_blkio(folder: str, blkio: v1.BlkIOStat) -> None:
    names = _device_names()
    for field, file in _V1_BLKIO.items():
        # The schedulers that count, before the throttling layer that always does.
        for prefix in ("blkio.bfq", "blkio", "blkio.throttle"):
            entries = list(_v1_blkio_entries(read_or_empty(f"{folder}/{prefix}.{file}"), names))
            if entries:
                getattr(blkio, field).extend(entries)
                break


def _v1_blkio_entries(text: str, names: Mapping[str, str]) -> Iterator[v1.BlkIOEntry]:
    for line in text.splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) < 3 or not fields[0].isdigit():
            continue  # the total over all devices
        major, minor, *operation, value = fields
        yield v1.BlkIOEntry(
            op=operation[0] if operation else "",
            device=names.get(f"{major}:{minor}", ""),
            major=int(major),
            minor=int(minor),
            value=int(value),
        )


def _device_names() -> dict[str, str]:
    rows = (line.split() for line in read_or_empty("/proc/diskstats").splitlines())
    return {f"{row[0]}:{row[1]}": f"/dev/{row[2]}" for row in rows if len(row) > 2}


def collect_v2(folder: str) -> v2.Metrics:
    metrics = v2.Metrics()
    metrics.pids.current = _number(f"{folder}/pids.current")
    metrics.pids.limit = _number(f"{folder}/pids.max")
    _fill(metrics.cpu, _pairs(f"{folder}/cpu.stat"))
    _pressure(f"{folder}/cpu.pressure", metrics.cpu)
    _v2_memory(folder, metrics)
    _v2_io(folder, metrics.io)
    for size in _page_sizes(folder):
        prefix = f"hugetlb.{size}"
        metrics.hugetlb.add(
            pagesize=size,
            current=_number(f"{folder}/{prefix}.current"),
            max=_number(f"{folder}/{prefix}.max"),
            failcnt=dict(_pairs(f"{folder}/{prefix}.events")).get("max", 0),
        )
    _rdma(folder, metrics.rdma)
    return metrics


def _v2_memory(folder: str, metrics: v2.Metrics) -> None:
    memory = metrics.memory
    _fill(memory, _pairs(f"{folder}/memory.stat"))
    memory.usage = _number(f"{folder}/memory.current")
    memory.usage_limit = _number(f"{folder}/memory.max")
    memory.max_usage = _number(f"{folder}/memory.peak")
    memory.swap_usage = _number(f"{folder}/memory.swap.current")
    memory.swap_limit = _number(f"{folder}/memory.swap.max")
    memory.swap_max_usage = _number(f"{folder}/memory.swap.peak")
    _pressure(f"{folder}/memory.pressure", memory)
    _fill(metrics.memory_events, _pairs(f"{folder}/memory.events"))


def _v2_io(folder: str, io: v2.IOStat) -> None:
    for line in read_or_empty(f"{folder}/io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        entry = io.usage.add(major=int(major), minor=int(minor))
        _fill(entry, _assignments(pairs))
    _pressure(f"{folder}/io.pressure", io)


def _pressure(path: str, message: Any) -> None:
    """Pressure stall information: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    for line in read_or_empty(path).splitlines():
        kind, *pairs = line.split()
        data = getattr(message.psi, kind)
        for pair in pairs:
            key, _, value = pair.partition("=")
            setattr(data, key, int(value) if key == "total" else float(value))


def _rdma(folder: str, stat: Any) -> None:
    """`mlx4_0 hca_handle=2 hca_object=2000`, the same on both versions."""
    for name, entries in (("rdma.current", stat.current), ("rdma.max", stat.limit)):
        for line in read_or_empty(f"{folder}/{name}").splitlines():
            device, *pairs = line.split()
            values = dict(_assignments(pairs, unlimited=2**32 - 1))
            entries.add(
                device=device,
                hca_handles=values.get("hca_handle", 0),
                hca_objects=values.get("hca_object", 0),
            )


def _page_sizes(folder: str) -> list[str]:
    """The page sizes that hugetlb accounts, such as "2MB"; files are named hugetlb.SIZE.KIND."""
    return sorted(
        {name.split(".")[1] for name in os.listdir(folder) if name.startswith("hugetlb.")}
    )


def _fill(message: Message, pairs: Iterable[tuple[str, int]]) -> None:
    """Set the scalar fields that bear the keys' names; other keys have no place."""
    fields = message.DESCRIPTOR.fields_by_name
    for key, value in pairs:
        if key in fields and fields[key].message_type is None:
            setattr(message, key, value)


def _pairs(path: str) -> Iterator[tuple[str, int]]:
    """The lines `key value` of a flat kernel file."""
    for line in read_or_empty(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            yield key, int(value)


def _assignments(words: Iterable[str], unlimited: int = UNLIMITED) -> Iterator[tuple[str, int]]:
    for word in words:
        key, _, value = word.partition("=")
        yield key, unlimited if value == "max" else int(value)


def _number(path: str, unlimited: int = UNLIMITED) -> int:
    text = read_or_empty(path).strip()
    if text == "max":
        return unlimited
    return int(text) if text.isdigit() else 0
