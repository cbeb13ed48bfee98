"""Statistics of a container, read straight from its cgroup files.

The messages are `io.containerd.cgroups.v1.Metrics` and `io.containerd.cgroups.v2.Metrics`; which
one depends on the host. A file that a kernel lacks leaves its fields at zero.

A scrape of the metrics reads some twenty thousand files this way: each is opened from its folder,
which saves the kernel the way there, and read at once.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from orlop.errors import NotFound
from orlop.shim.cgroup import Cgroup
from orlop.shim.files import read_or_empty
from orlop.wire import cgroups_v1_pb2 as v1
from orlop.wire import cgroups_v2_pb2 as v2

UNLIMITED = 2**64 - 1
_V1_UNLIMITED = 2**63 - 2**16
"""Limits of memory on cgroup v1 that are none: LONG_MAX, down to a whole page."""
_CHUNK = 4096
_READ = os.O_RDONLY | os.O_CLOEXEC
_PAIRS = re.compile(rb"^(\S+) (\d+)$", re.MULTILINE)
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
_V1_BLKIO_PREFIXES = ("blkio.bfq", "blkio", "blkio.throttle")
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
    return Collector().collect(cgroup)


class Folder:
    """An open folder of a cgroup; files of it are read by their names."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def names(self) -> list[str]:
        """Raises NotFound if the cgroup goes."""
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                found = os.listdir(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            found = []
        if not found:
            raise NotFound("cgroup does not exist")
        return found

    def read(self, name: str) -> bytes:
        """A kernel file, b"" if this kernel has none; raises NotFound if the cgroup goes."""
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except OSError:
            return b""
        try:
            data = part = os.read(fd, _CHUNK)
            while len(part) == _CHUNK:
                part = os.read(fd, _CHUNK)
                data += part
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise NotFound("cgroup does not exist") from None
            return b""
        finally:
            os.close(fd)
        return data

    def number(self, name: str, unlimited: int = UNLIMITED) -> int:
        data = self.read(name)
        return int(data) if data[:1].isdigit() else unlimited if data[:3] == b"max" else 0

    def pairs(self, name: str) -> list[tuple[bytes, bytes]]:
        """The lines `key value` of a flat file; values are decimal digits."""
        return _PAIRS.findall(self.read(name))


class Collector:
    """Collects statistics of any number of containers, one after another.

    It remembers what is the same for all: which files this kernel has, and its devices' names.
    """

    def __init__(self) -> None:
        self._blkio_files: dict[str, list[str]] | None = None
        self._page_sizes: list[str] | None = None
        self._devices: dict[str, str] | None = None

    def collect(self, cgroup: Cgroup) -> Message:
        """Raises NotFound if the cgroup does not exist (any more)."""
        if cgroup.unified is not None:
            with _Opened(cgroup.unified) as folder:
                if folder is None:
                    raise NotFound("cgroup does not exist")
                return self._v2(folder)
        metrics, found = v1.Metrics(), False
        for controller, take in _V1_CONTROLLERS.items():
            if (path := cgroup.controllers.get(controller)) is not None:
                with _Opened(path) as folder:
                    if folder is not None:
                        take(self, folder, metrics)
                        found = True
        if not found and not cgroup.exists():
            raise NotFound("cgroup does not exist")
        return metrics

    # Version 1

    def _v1_pids(self, folder: Folder, metrics: v1.Metrics) -> None:
        metrics.pids.current = folder.number("pids.current")
        metrics.pids.limit = folder.number("pids.max", unlimited=0)

    def _v1_cpuacct(self, folder: Folder, metrics: v1.Metrics) -> None:
        usage = metrics.cpu.usage
        usage.per_cpu.extend(map(int, folder.read("cpuacct.usage_percpu").split()))
        # Their sum is what cpuacct.usage says, too.
        usage.total = sum(usage.per_cpu) or folder.number("cpuacct.usage")
        ticks = dict(folder.pairs("cpuacct.stat"))
        usage.user = int(ticks.get(b"user", 0)) * NANOSECONDS_PER_TICK
        usage.kernel = int(ticks.get(b"system", 0)) * NANOSECONDS_PER_TICK

    def _v1_cpu(self, folder: Folder, metrics: v1.Metrics) -> None:
        found = dict(folder.pairs("cpu.stat"))
        throttling = metrics.cpu.throttling
        throttling.periods = int(found.get(b"nr_periods", 0))
        throttling.throttled_periods = int(found.get(b"nr_throttled", 0))
        throttling.throttled_time = int(found.get(b"throttled_time", 0))

    def _v1_memory(self, folder: Folder, metrics: v1.Metrics) -> None:
        memory = metrics.memory
        _fill(memory, _V1_MEMORY_FIELDS, folder.pairs("memory.stat"))
        for name, prefix in _V1_MEMORY_ENTRIES.items():
            if most := folder.read(f"{prefix}.max_usage_in_bytes"):
                entry = getattr(memory, name)
                entry.max = int(most)
                entry.limit = folder.number(f"{prefix}.limit_in_bytes")
                if entry.max or entry.limit < _V1_UNLIMITED:  # else nothing was ever asked for
                    entry.usage = folder.number(f"{prefix}.usage_in_bytes")
                    entry.failcnt = folder.number(f"{prefix}.failcnt")
        _fill(metrics.memory_oom_control, _V1_OOM_FIELDS, folder.pairs("memory.oom_control"))

    def _v1_blkio(self, folder: Folder, metrics: v1.Metrics) -> None:
        if self._blkio_files is None:
            there = set(folder.names())
            # The schedulers that count, before the throttling layer that always does.
            prefixes = _V1_BLKIO_PREFIXES if _bfq_is_used() else _V1_BLKIO_PREFIXES[1:]
            self._blkio_files = {
                field: [name for prefix in prefixes if (name := f"{prefix}.{file}") in there]
                for field, file in _V1_BLKIO.items()
            }
        for field, names in self._blkio_files.items():
            for name in names:
                if entries := list(self._blkio_entries(folder.read(name))):
                    getattr(metrics.blkio, field).extend(entries)
                    break

    def _blkio_entries(self, data: bytes) -> Iterator[v1.BlkIOEntry]:
        for line in data.decode(errors="replace").splitlines():
            fields = line.replace(":", " ").split()
            if len(fields) < 3 or not all(fields[at].isdigit() for at in (0, 1, -1)):
                continue  # the total over all devices, or what no kernel has said so far
            major, minor, *operation, value = fields
            if self._devices is None:
                self._devices = _device_names()
            yield v1.BlkIOEntry(
                op=operation[0] if operation else "",
                device=self._devices.get(f"{major}:{minor}", ""),
                major=int(major),
                minor=int(minor),
                value=int(value),
            )

    def _v1_hugetlb(self, folder: Folder, metrics: v1.Metrics) -> None:
        for size in self._sizes(folder):
            prefix = f"hugetlb.{size}"
            metrics.hugetlb.add(
                pagesize=size,
                usage=folder.number(f"{prefix}.usage_in_bytes"),
                max=folder.number(f"{prefix}.max_usage_in_bytes"),
                failcnt=folder.number(f"{prefix}.failcnt"),
            )

    def _v1_rdma(self, folder: Folder, metrics: v1.Metrics) -> None:
        _rdma(folder, metrics.rdma)

    # Version 2

    def _v2(self, folder: Folder) -> v2.Metrics:
        metrics = v2.Metrics()
        metrics.pids.current = folder.number("pids.current")
        metrics.pids.limit = folder.number("pids.max")
        _fill(metrics.cpu, _V2_CPU_FIELDS, folder.pairs("cpu.stat"))
        _pressure(folder.read("cpu.pressure"), metrics.cpu)
        _v2_memory(folder, metrics)
        _v2_io(folder, metrics.io)
        for size in self._sizes(folder):
            prefix = f"hugetlb.{size}"
            metrics.hugetlb.add(
                pagesize=size,
                current=folder.number(f"{prefix}.current"),
                max=folder.number(f"{prefix}.max"),
                failcnt=int(dict(folder.pairs(f"{prefix}.events")).get(b"max", 0)),
            )
        _rdma(folder, metrics.rdma)
        return metrics

    def _sizes(self, folder: Folder) -> list[str]:
        """The page sizes that hugetlb accounts, such as "2MB"; files are hugetlb.SIZE.KIND."""
        if self._page_sizes is None:
            names = folder.names()
            self._page_sizes = sorted({n.split(".")[1] for n in names if n.startswith("hugetlb.")})
        return self._page_sizes


class _Opened:
    """A folder for the time of a `with` block, None if it is not there."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Folder | None:
        try:
            self._fd = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
            return None
        return Folder(self._fd)

    def __exit__(self, *details: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


_V1_CONTROLLERS = {
    "pids": Collector._v1_pids,
    "cpuacct": Collector._v1_cpuacct,
    "cpu": Collector._v1_cpu,
    "memory": Collector._v1_memory,
    "blkio": Collector._v1_blkio,
    "hugetlb": Collector._v1_hugetlb,
    "rdma": Collector._v1_rdma,
}


def _bfq_is_used() -> bool:
    """Whether a disk has this scheduler; one that has not counts nothing in its files."""
    try:
        disks = os.listdir("/sys/block")
    except OSError:
        return True
    return any("[bfq]" in read_or_empty(f"/sys/block/{disk}/queue/scheduler") for disk in disks)


def _device_names() -> dict[str, str]:
    rows = (line.split() for line in read_or_empty("/proc/diskstats").splitlines())
    return {f"{row[0]}:{row[1]}": f"/dev/{row[2]}" for row in rows if len(row) > 2}


def _v2_memory(folder: Folder, metrics: v2.Metrics) -> None:
    memory = metrics.memory
    _fill(memory, _V2_MEMORY_FIELDS, folder.pairs("memory.stat"))
    memory.usage = folder.number("memory.current")
    memory.usage_limit = folder.number("memory.max")
    memory.max_usage = folder.number("memory.peak")
    memory.swap_usage = folder.number("memory.swap.current")
    memory.swap_limit = folder.number("memory.swap.max")
    memory.swap_max_usage = folder.number("memory.swap.peak")
    _pressure(folder.read("memory.pressure"), memory)
    _fill(metrics.memory_events, _V2_EVENTS_FIELDS, folder.pairs("memory.events"))


def _v2_io(folder: Folder, io: v2.IOStat) -> None:
    for line in folder.read("io.stat").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(b":")
        if major.isdigit() and minor.isdigit():
            entry = io.usage.add(major=int(major), minor=int(minor))
            _fill(entry, _V2_IO_FIELDS, _assignments(words))
    _pressure(folder.read("io.pressure"), io)


def _pressure(data: bytes, message: Any) -> None:
    """Pressure stall information: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    for line in data.splitlines():
        kind, *words = line.split()
        if kind not in _PSI:
            continue
        stall = getattr(message.psi, kind.decode())
        for word in words:
            key, _, value = word.partition(b"=")
            if name := _PSI_FIELDS.get(key):
                setattr(stall, name, int(value) if key == b"total" else float(value))


def _rdma(folder: Folder, stat: Any) -> None:
    """`mlx4_0 hca_handle=2 hca_object=2000`, the same on both versions."""
    for name, entries in (("rdma.current", stat.current), ("rdma.max", stat.limit)):
        for line in folder.read(name).splitlines():
            device, *words = line.split()
            values = dict(_assignments(words, unlimited=2**32 - 1))
            entries.add(
                device=device.decode(errors="replace"),
                hca_handles=values.get(b"hca_handle", 0),
                hca_objects=values.get(b"hca_object", 0),
            )


def _assignments(words: Iterable[bytes], unlimited: int = UNLIMITED) -> Iterator[tuple[bytes, int]]:
    for word in words:
        key, _, value = word.partition(b"=")
        if value.isdigit():
            yield key, int(value)
        elif value == b"max":
            yield key, unlimited


def _fields(kind: type[Message], renamed: Mapping[str, str] = {}) -> dict[bytes, str]:
    """From a kernel file's keys to the scalar fields of a message; other keys have no place."""
    names = {f.name: f.name for f in kind.DESCRIPTOR.fields if f.message_type is None}
    names.update(renamed)
    return {key.encode(): name for key, name in names.items()}


_V1_MEMORY_FIELDS = _fields(v1.MemoryStat, _V1_MEMORY_NAMES)
_V1_OOM_FIELDS = _fields(v1.MemoryOomControl)
_V2_CPU_FIELDS = _fields(v2.CPUStat)
_V2_MEMORY_FIELDS = _fields(v2.MemoryStat)
_V2_EVENTS_FIELDS = _fields(v2.MemoryEvents)
_V2_IO_FIELDS = _fields(v2.IOEntry)
_PSI = (b"some", b"full")
_PSI_FIELDS = _fields(v2.PSIData)


def _fill(
    message: Message, fields: Mapping[bytes, str], pairs: Iterable[tuple[bytes, bytes | int]]
) -> None:
    for key, value in pairs:
        if (name := fields.get(key)) is not None:
            setattr(message, name, int(value))
