"""Metrics on pure cgroup v2: names as containerd has them there, figures as the kernel has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import disks
from tests.compat.test_metrics import *  # noqa: F403 - the same comparison, with version 2's names
from tests.metrics_fixture import Metrics, Scraped, scraped
from tests.vm.boxes import Box, Boxes

MIB = 1 << 20
_HELD, _WRITTEN = 24 * MIB, 8 * MIB


@contextmanager
def _working(boxes: Boxes, disk: Path) -> Iterator[Box]:
    """A container that holds memory, has written to a disk, and is busy."""
    script = (
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=24; "
        "dd if=/dev/zero of=/tmp/file bs=1M count=8 oflag=direct; "
        "sleep 1000 & : > /tmp/ready; while :; do :; done"
    )

    def share(spec: dict[str, object]) -> None:
        mounts = spec["mounts"]
        assert isinstance(mounts, list)
        mounts.append({"destination": "/tmp", "type": "bind", "source": str(disk),
                       "options": ["rbind", "rw"]})  # fmt: skip
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"})

    with boxes.box(
        "sh", "-c", script, edit=share, resources={"memory": {"limit": 64 * MIB}}
    ) as box:
        boxes.daemon.wait_for((disk / "ready").exists, 60)
        yield box


def _cpu(box: Box) -> float:
    """Microseconds, as the kernel says."""
    stat = dict(line.split() for line in box.limit("cpu.stat").splitlines())
    return float(stat["usage_usec"])


@pytest.mark.short
def test_a_known_workload(tmp_path: Path) -> None:
    with scraped(tmp_path) as served, disks.ext4(tmp_path) as disk:
        boxes = Boxes(served.daemon)
        with _working(boxes, disk) as box:
            here = {"container_id": box.id}
            boxes.daemon.wait_for(lambda: _cpu(box) > 2e6, 60)
            low = _cpu(box)
            found = served.scrape()
            high = _cpu(box)
            used = found.one("container_cpu_usage_seconds_total", **here) * 1e6
            assert low * 0.95 <= used <= high * 1.05
            _check_memory(found, here)
            _check_pressure(served, boxes, box, here)
            assert found.one("container_pids_current", **here) == 2
            assert found.one("container_threads", **here) == 2
            assert found.one("container_processes", **here) == 2
            major, minor = disks.numbers(disk)
            written = found.one("container_io_wbytes_bytes", major=major, minor=minor, **here)
            assert written == pytest.approx(_WRITTEN, rel=0.05)
            assert found.total("orlop_metrics_container_failures_total") == 0
            assert not [name for name in found.samples if "blkio" in name or "per_cpu" in name]


def _check_memory(found: Metrics, here: dict[str, str]) -> None:
    assert found.one("container_memory_shmem_bytes", **here) == pytest.approx(_HELD, rel=0.05)
    assert found.one("container_memory_usage_limit_bytes", **here) == 64 * MIB
    usage = found.one("container_memory_usage_bytes", **here)
    assert _HELD < usage < 64 * MIB
    assert found.one("container_memory_usage_max_bytes", **here) >= usage
    assert found.one("container_oom_events_total", **here) == 0


def _check_pressure(served: Scraped, boxes: Boxes, box: Box, here: dict[str, str]) -> None:
    """A second one that is busy on the same processor has both wait."""
    assert "total=" in box.limit("cpu.pressure")
    name = "container_pressure_cpu_waiting_seconds_total"
    before = served.scrape().one(name, **here)
    with boxes.box("sh", "-c", "while :; do :; done") as other:
        for each in (box, other):
            os.sched_setaffinity(each.pid, {0})
        served.daemon.wait_for(lambda: served.scrape().one(name, **here) > before + 0.5, 60)
    for part in ("memory", "io"):
        for kind in ("waiting", "stalled"):
            assert (
                served.scrape().one(f"container_pressure_{part}_{kind}_seconds_total", **here) >= 0
            )
