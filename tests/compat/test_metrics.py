"""What Debian's containerd tells Prometheus of a workload, orlopd tells of the same by the same
names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import disks
from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.metrics_fixture import Metrics, get, scraped
from tests.registry_fixture import free_port

_MIB = 1 << 20
_HELD = 32 * _MIB
_LIMIT = 512 * _MIB


class Version(NamedTuple):
    """What of a version of cgroups is the same for the same work.

    The rest is time, or how the kernel just happened to do it. `held` is the memory that the work
    takes, `written` what it writes, with these labels.
    """

    same: tuple[str, ...]
    held: str
    written: str
    labels: dict[str, str]


_V1 = Version(
    (
        "container_pids_current",
        "container_pids_limit",
        "container_memory_cache_bytes",
        "container_memory_total_cache_bytes",
        "container_memory_usage_limit_bytes",
        "container_memory_hierarchical_memory_limit_bytes",
        "container_memory_swap_limit_bytes",
        "container_memory_usage_failcnt_total",
        "container_memory_mapped_file_bytes",
        "container_cpu_throttled_periods_total",
        "container_memory_unevictable_bytes",
    ),
    "container_memory_cache_bytes",
    "container_blkio_io_service_bytes_recursive_bytes",
    {"op": "Write"},
)
_V2 = Version(
    (
        "container_pids_current",
        "container_pids_limit",
        "container_memory_file_bytes",
        "container_memory_shmem_bytes",
        "container_memory_usage_limit_bytes",
        "container_memory_swap_limit_bytes",
        "container_memory_file_mapped_bytes",
        "container_memory_unevictable_bytes",
        "container_memory_oom_total",
        "container_cpu_nr_throttled_total",
    ),
    "container_memory_shmem_bytes",
    "container_io_wbytes_bytes",
    {},
)
VERSION = _V2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else _V1


@contextmanager
def _working(daemon: Orlopd | Containerd, archive: Path, folder: Path) -> Iterator[None]:
    """A container that holds memory, has written to a disk, and sleeps."""
    ready = folder / f"ready-{daemon.namespace}"
    script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=32 && touch $0 && exec sleep 1000"
    daemon.ctr("images", "import", str(archive))
    daemon.ctr(
        "run", "-d", "--memory-limit", str(_LIMIT),
        "--mount", f"type=bind,src={folder},dst={folder},options=rbind:rw",
        BUSYBOX, "worker", "/bin/sh", "-c", script, str(ready),
    )  # fmt: skip
    try:
        daemon.wait_for(ready.exists, 30)
        _count_writes(daemon.namespace, folder)
        daemon.ctr(
            "task", "exec", "--exec-id", "writer", "worker",
            "dd", "if=/dev/zero", f"of={folder}/{daemon.namespace}", "bs=1M", "count=8",
            "oflag=direct",
        )  # fmt: skip
        yield
    finally:
        daemon.ctr("task", "rm", "-f", "worker", check=False)
        daemon.ctr("container", "rm", "worker", check=False)


def _count_writes(namespace: str, folder: Path) -> None:
    """Version 1 counts where there is a limit."""
    limit = Path(f"/sys/fs/cgroup/blkio/{namespace}/worker/blkio.throttle.write_bps_device")
    if VERSION is _V1:
        limit.write_text(f"{':'.join(disks.numbers(folder))} {1 << 40}")


def test_names_labels_and_figures_are_containerds(tmp_path: Path, busybox_archive: Path) -> None:
    port = free_port()
    theirs_folder = tmp_path / "theirs"
    theirs_folder.mkdir()
    address = f'[metrics]\naddress = "127.0.0.1:{port}"\ngrpc_histogram = true\n'
    with (
        scraped(tmp_path) as served,
        run_containerd(theirs_folder, more=address) as containerd,
        disks.ext4(tmp_path) as disk,
        _working(containerd, busybox_archive, disk),
        _working(served.daemon, busybox_archive, disk),
    ):
        theirs = Metrics(get(port, "/v1/metrics").body.decode())
        ours = Metrics(served.get("/v1/metrics").body.decode())
        device = dict(zip(("major", "minor"), disks.numbers(disk), strict=True))
    names = [name for name in theirs.samples if name.startswith("container_")]
    assert len(names) > 40
    for name in names:
        assert _labels(theirs, name) == _labels(ours, name), name
    for name in VERSION.same:
        want = theirs.one(name, container_id="worker")
        slack = _MIB if name.endswith("_bytes") else 0
        assert ours.one(name, container_id="worker") == pytest.approx(want, rel=0.05, abs=slack), (
            name
        )
    assert ours.one(VERSION.held) == pytest.approx(_HELD, rel=0.05)
    labels = {**VERSION.labels, **device}
    assert ours.one(VERSION.written, **labels) == theirs.one(VERSION.written, **labels) == 8 * _MIB
    for name in filter(re.compile("grpc_server|containerd_build").match, theirs.samples):
        assert name in ours.samples, name
        assert _labels(ours, name) == _labels(theirs, name)


# Of containerd 1.7 and 2, by their sources; Debian's 1.6 counts no collections.
_COLLECTIONS = {
    "containerd_gc_collections_total": {("status",)},
    "containerd_gc_gc_seconds_bucket": {("le",)},
    "containerd_gc_gc_seconds_sum": {()},
    "containerd_gc_gc_seconds_count": {()},
}


def test_collections_are_counted_by_containerds_names(
    tmp_path: Path, busybox_archive: Path
) -> None:
    with scraped(tmp_path) as served:
        served.daemon.ctr("images", "import", str(busybox_archive))
        served.daemon.ctr("images", "rm", "--sync", BUSYBOX)  # which is a collection
        found = Metrics(served.get("/v1/metrics").body.decode())
    assert found.one("containerd_gc_collections_total", status="success") >= 1
    assert found.one("containerd_gc_gc_seconds_count") >= 1
    names = {name for name in found.samples if name.startswith("containerd_gc_")}
    assert {name: _labels(found, name) for name in names} == _COLLECTIONS


def _labels(found: Metrics, name: str) -> set[tuple[str, ...]]:
    return {tuple(key for key, _ in labels) for labels in found.samples.get(name, {})}
