"""What a container's cgroup says, as metrics: names, labels and units are containerd's.

Where containerd has no metric, names are cAdvisor's. containerd calls everything a gauge; what is
named "_total" is a counter here. Times are told in seconds, too, as Prometheus would have it, and
by the same names whatever the version of cgroups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.message import Message

from orlop.metrics.family import Family, Sheet, pairs
from orlop.wire import cgroups_v1_pb2 as v1

SERIES_MAX = 256
"""Samples of one metric of a container: more processors, devices or page sizes are left out."""

_MICROSECONDS = 1e-6
# From fields of messages to names.
_V1_MEMORY = {
    **{name: name for name in ("cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback")},
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    **{f"{a}_{b}": f"{a}_{b}" for b in ("anon", "file") for a in ("inactive", "active")},
    "unevictable": "unevictable",
}
_V1_ENTRIES = {"usage": "usage", "swap": "swap", "kernel": "kernel", "kernel_tcp": "kerneltcp"}
_V1_BLKIO = {
    "io_merged_recursive": ("io_merged_recursive_total", "Requests merged"),
    "io_queued_recursive": ("io_queued_recursive_total", "Requests queued"),
    "io_service_bytes_recursive": ("io_service_bytes_recursive_bytes", "Bytes read and written"),
    "io_service_time_recursive": ("io_service_time_recursive_total", "Nanoseconds of service"),
    "io_wait_time_recursive": ("io_wait_time_recursive_total", "Nanoseconds in the queue"),
    "io_serviced_recursive": ("io_serviced_recursive_total", "Requests served"),
    "io_time_recursive": ("io_time_recursive_total", "Milliseconds of the device"),
    "sectors_recursive": ("sectors_recursive_total", "Sectors read and written"),
}
_V2_MEMORY = tuple(
    name
    for group in (
        ("file_mapped", "file_dirty", "file_writeback", "pgactivate", "pgdeactivate", "pgfault"),
        ("pgmajfault", "pglazyfree", "pgrefill", "pglazyfreed", "pgscan", "pgsteal"),
        ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "anon"),
        ("file", "kernel_stack", "slab", "sock", "shmem", "anon_thp", "slab_reclaimable"),
        ("slab_unreclaimable", "workingset_refault", "workingset_activate"),
        ("workingset_nodereclaim", "thp_fault_alloc", "thp_collapse_alloc"),
    )
    for name in group
)


class _Part(NamedTuple):
    """A message within the statistics, at `path`; without it there are no samples.

    `read` gives the fields that are one sample each, in the order of `families`; so many of them,
    `unit`, are one of the metric's.
    """

    path: tuple[str, ...]
    families: tuple[Family, ...]
    names: tuple[str, ...]
    read: Callable[[Any], tuple[float, ...]]
    unit: int


def _part(path: str, *rows: tuple[str, str, str], unit: int = 1) -> _Part:
    """Rows, two at least, are a field, the metric's name without "container_", and what it is."""
    families = tuple(Family(f"container_{name}", text) for _, name, text in rows)
    names = tuple(family.name for family in families)
    read = attrgetter(*(row[0] for row in rows))
    return _Part(tuple(path.split(".")), families, names, read, unit)


def _stat(field: str, name: str) -> tuple[str, str, str]:
    return field, f"memory_{name}_bytes", f'"{name}" of memory.stat'


def _entry(field: str, name: str) -> _Part:
    kind = {"usage": "all", "swap": "with swap", "kernel": "kernel", "kernel_tcp": "TCP"}[field]
    return _part(
        f"memory.{field}",
        ("failcnt", f"memory_{name}_failcnt_total", f"How often the limit was met ({kind})"),
        ("limit", f"memory_{name}_limit_bytes", f"Limit of memory ({kind})"),
        ("max", f"memory_{name}_max_bytes", f"Most memory ever used ({kind})"),
        ("usage", f"memory_{name}_usage_bytes", f"Memory in use ({kind})"),
    )


_PIDS = _part(
    "pids",
    ("current", "pids_current", "Processes and threads"),
    ("limit", "pids_limit", "Processes and threads at most; with cgroup v1, 0 is no limit"),
    ("current", "threads", "Processes and threads (cAdvisor's name)"),
)
_OOM = ("memory_oom_total", "How often memory ran out")
_KILLED = ("oom_kill", "oom_events_total", "Processes killed because memory ran out")


def _times(total: str, user: str, system: str, throttled: str, unit: int) -> _Part:
    """Processor times in seconds, from the fields that have them in a smaller unit."""
    return _part(
        "cpu",
        (total, "cpu_usage_seconds_total", "Processor time"),
        (user, "cpu_user_seconds_total", "Processor time outside of the kernel"),
        (system, "cpu_system_seconds_total", "Processor time in the kernel"),
        (throttled, "cpu_cfs_throttled_seconds_total", "Time held up by its limit"),
        unit=unit,
    )


_V1 = [
    _PIDS,
    _times("usage.total", "usage.user", "usage.kernel", "throttling.throttled_time", 1_000_000_000),
    _part(
        "cpu.usage",
        ("total", "cpu_total_nanoseconds", "Processor time"),
        ("kernel", "cpu_kernel_nanoseconds", "Processor time in the kernel"),
        ("user", "cpu_user_nanoseconds", "Processor time outside of the kernel"),
    ),
    _part(
        "cpu.throttling",
        ("periods", "cpu_throttle_periods_total", "Periods with a limit of processor time"),
        ("throttled_periods", "cpu_throttled_periods_total", "Periods in which it was met"),
        ("throttled_time", "cpu_throttled_time_nanoseconds", "Time held up by it"),
    ),
    _part(
        "memory",
        *(_stat(field, name) for field, name in _V1_MEMORY.items()),
        _stat("hierarchical_memory_limit", "hierarchical_memory_limit"),
        _stat("hierarchical_swap_limit", "hierarchical_memsw_limit"),
        *(_stat(f"total_{field}", f"total_{name}") for field, name in _V1_MEMORY.items()),
    ),
    *(_entry(field, name) for field, name in _V1_ENTRIES.items()),
    _part("memory_oom_control", ("oom_kill", *_OOM), _KILLED),
]
_V2 = [
    _PIDS,
    _times("usage_usec", "user_usec", "system_usec", "throttled_usec", 1_000_000),
    _part(
        "cpu",
        ("usage_usec", "cpu_usage_usec_microseconds", "Processor time"),
        ("user_usec", "cpu_user_usec_microseconds", "Processor time outside of the kernel"),
        ("system_usec", "cpu_system_usec_microseconds", "Processor time in the kernel"),
        ("nr_periods", "cpu_nr_periods_total", "Periods with a limit of processor time"),
        ("nr_throttled", "cpu_nr_throttled_total", "Periods in which it was met"),
        ("throttled_usec", "cpu_throttled_usec_microseconds", "Time held up by it"),
    ),
    _part(
        "memory",
        ("usage", "memory_usage_bytes", "Memory in use"),
        ("usage_limit", "memory_usage_limit_bytes", "Limit of memory"),
        ("max_usage", "memory_usage_max_bytes", "Most memory ever used (all)"),
        ("swap_usage", "memory_swap_usage_bytes", "Swap in use"),
        ("swap_limit", "memory_swap_limit_bytes", "Limit of swap"),
        *(_stat(name, name) for name in _V2_MEMORY),
    ),
    _part("memory_events", ("oom", *_OOM), _KILLED),
]

_PER_CPU = Family("container_per_cpu_nanoseconds", "Processor time of each processor", ("cpu",))
_PER_CPU_SECONDS = Family("container_per_cpu_seconds_total", _PER_CPU.help, _PER_CPU.labels)
_BLKIO = {
    field: Family(f"container_blkio_{name}", text, ("op", "device", "major", "minor"))
    for field, (name, text) in _V1_BLKIO.items()
}
_PAGES = {
    "usage": Family("container_hugetlb_usage_bytes", "Huge pages in use", ("page",)),
    "max": Family("container_hugetlb_max_bytes", "Most huge pages ever used", ("page",)),
    "limit": Family("container_hugetlb_limit_bytes", "Limit of huge pages", ("page",)),
    "failcnt": Family("container_hugetlb_failcnt_total", "How often it was met", ("page",)),
}
_IO = {
    "rbytes": Family("container_io_rbytes_bytes", "Bytes read", ("major", "minor")),
    "wbytes": Family("container_io_wbytes_bytes", "Bytes written", ("major", "minor")),
    "rios": Family("container_io_rios_total", "Requests to read", ("major", "minor")),
    "wios": Family("container_io_wios_total", "Requests to write", ("major", "minor")),
}
_RDMA = {
    ("current", "hca_handles"): Family("container_rdma_hca_handles", "In use", ("device",)),
    ("current", "hca_objects"): Family("container_rdma_hca_objects", "In use", ("device",)),
    ("limit", "hca_handles"): Family("container_rdma_hca_handles_limit", "At most", ("device",)),
    ("limit", "hca_objects"): Family("container_rdma_hca_objects_limit", "At most", ("device",)),
}
_STALLS = {
    (part, level): Family(
        f"container_pressure_{part}_{name}_seconds_total",
        f"Time in which {who} processes waited for {part}",
    )
    for part in ("cpu", "memory", "io")
    for name, level, who in (("waiting", "some", "some"), ("stalled", "full", "all"))
}


def families() -> Iterator[Family]:
    """Every metric there may be, each once."""
    found: dict[str, Family] = {}
    for part in (*_V1, *_V2):
        for family in part.families:
            found.setdefault(family.name, family)
    tables: tuple[Iterable[Family], ...] = (
        (_PER_CPU, _PER_CPU_SECONDS),
        *(table.values() for table in (_BLKIO, _PAGES, _IO, _RDMA, _STALLS)),
    )
    for table in tables:
        found.update((family.name, family) for family in table)
    yield from found.values()


def write(sheet: Sheet, labels: str, statistics: Message) -> int:
    """Add the samples of a container; how many were left out for there are too many.

    `statistics` is `io.containerd.cgroups.v1.Metrics` or that of v2.
    """
    stats: Any = statistics
    one = isinstance(statistics, v1.Metrics)
    for part in _V1 if one else _V2:
        message = stats
        for name in part.path:
            if not message.HasField(name):
                break
            message = getattr(message, name)
        else:
            values: Sequence[float] = part.read(message)
            if part.unit != 1:
                values = [value / part.unit for value in values]
            sheet.add_row(part.names, labels, values)
    more = list(_v1_lists(stats) if one else _v2_lists(stats))
    return _write_lists(sheet, labels, more)


_Sample = tuple[Family, tuple[object, ...], float]


def _write_lists(sheet: Sheet, labels: str, samples: list[_Sample]) -> int:
    counts: dict[str, int] = {}
    dropped = 0
    for family, values, number in samples:
        counts[family.name] = counts.get(family.name, 0) + 1
        if counts[family.name] > SERIES_MAX:
            dropped += 1
            continue
        own = pairs(zip(family.labels, map(str, values), strict=True))
        sheet.add(family.name, f"{labels},{own}" if own else labels, number)
    return dropped


def _v1_lists(stats: Any) -> Iterator[_Sample]:
    for number, value in enumerate(stats.cpu.usage.per_cpu):
        yield _PER_CPU, (number,), value
        yield _PER_CPU_SECONDS, (number,), value / 1_000_000_000
    for field, family in _BLKIO.items():
        for each in getattr(stats.blkio, field):
            yield family, (each.op, each.device, each.major, each.minor), each.value
    for each in stats.hugetlb:
        for field in ("usage", "max", "failcnt"):
            yield _PAGES[field], (each.pagesize,), getattr(each, field)
    yield from _rdma(stats.rdma)


def _v2_lists(stats: Any) -> Iterator[_Sample]:
    for each in stats.io.usage:
        for field, family in _IO.items():
            yield family, (each.major, each.minor), getattr(each, field)
    for each in stats.hugetlb:
        yield _PAGES["usage"], (each.pagesize,), each.current
        yield _PAGES["limit"], (each.pagesize,), each.max
        yield _PAGES["failcnt"], (each.pagesize,), each.failcnt
    yield from _rdma(stats.rdma)
    for (part, level), family in _STALLS.items():
        stalled = getattr(stats, part).psi
        if stalled.HasField(level):
            yield family, (), getattr(stalled, level).total * _MICROSECONDS


def _rdma(rdma: Any) -> Iterator[_Sample]:
    for (list_, field), family in _RDMA.items():
        for each in getattr(rdma, list_):
            yield family, (each.device,), getattr(each, field)
