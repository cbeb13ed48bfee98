"""Control groups on pure cgroup v2, by runC's own driver and by systemd's."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from orlop.wire.services import tasks_pb2
from tests.vm.boxes import CGROUPS, Boxes, Make, options

MEBI = 1 << 20


@pytest.mark.short
def test_where_they_are_and_what_metrics_say(make: Make, boxes: Boxes) -> None:
    with make(resources={"memory": {"limit": 64 * MEBI}, "pids": {"limit": 50}}) as box:
        expected = f"{boxes.daemon.namespace}/{box.id}", f"system.slice/orlop-{box.id}.scope"
        assert str(box.cgroup.relative_to(CGROUPS)) in expected
        metrics = box.metrics()
        assert metrics.memory.usage_limit == 64 * MEBI
        assert 0 < metrics.memory.usage < 64 * MEBI
        assert (metrics.pids.current, metrics.pids.limit) == (1, 50)
        assert metrics.cpu.usage_usec > 0
        assert not metrics.memory_events.oom_kill


@pytest.mark.short
def test_update_of_a_running_task(make: Make) -> None:
    with make(resources={"memory": {"limit": 64 * MEBI}}) as box:
        box.update(
            memory={"limit": 32 * MEBI, "reservation": 16 * MEBI},
            cpu={"quota": 20_000, "period": 100_000, "shares": 512, "cpus": "1"},
            pids={"limit": 7},
        )
        assert box.limit("memory.max") == str(32 * MEBI)
        assert box.limit("memory.low") == str(16 * MEBI)
        assert box.limit("cpu.max") == "20000 100000"
        assert box.limit("cpu.weight") == "20"
        assert box.limit("cpuset.cpus") == "1"
        assert box.limit("pids.max") == "7"
        assert box.metrics().pids.limit == 7


def test_limits_of_io(make: Make) -> None:
    """From the start: `runc update` leaves devices as they are."""
    disk = Path("/").stat().st_dev
    limit = {"major": os.major(disk), "minor": os.minor(disk), "rate": MEBI}
    with make(resources={"blockIO": {"throttleWriteBpsDevice": [limit]}}) as box:
        assert box.limit("io.max").startswith(f"{os.major(disk)}:{os.minor(disk)} ")
        assert "wbps=1048576" in box.limit("io.max")


@pytest.mark.short
def test_pause_and_resume_by_the_freezer(make: Make) -> None:
    with make() as box:
        box.connection.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=box.id))
        assert "frozen 1" in box.limit("cgroup.events")
        assert box.status() == "PAUSED"
        box.connection.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=box.id))
        assert "frozen 0" in box.limit("cgroup.events")
        assert box.status() == "RUNNING"


@pytest.mark.short
def test_out_of_memory(make: Make, boxes: Boxes) -> None:
    with boxes.starved(make) as box:
        killed = box.metrics().memory_events.oom_kill  # the kernel may have chosen several
        assert killed >= 1
        assert f"oom_kill {killed}" in box.limit("memory.events").splitlines()


def test_a_nested_cgroup_goes_with_its_container(boxes: Boxes) -> None:
    with boxes.box(namespaces=("pid", "ipc", "uts", "mount", "network")) as box:
        (box.cgroup / "nested").mkdir()
        cgroup = box.cgroup
    assert not cgroup.exists()


def test_a_cgroup_for_the_shim(boxes: Boxes) -> None:
    path = f"/{boxes.daemon.namespace}-shims/deep"
    with boxes.box(options=options(shim_cgroup=path)) as box:
        shim = Path(f"/proc/{box.pid}/stat").read_text().rpartition(")")[2].split()[1]
        assert Path(f"/proc/{shim}/cgroup").read_text() == f"0::{path}\n"
        assert box.cgroup == CGROUPS / boxes.daemon.namespace / box.id
    top = CGROUPS / f"{boxes.daemon.namespace}-shims"

    def is_gone() -> bool:
        """Which it can be once the shim is."""
        with suppress(OSError):
            (top / "deep").rmdir()
        return not (top / "deep").exists()

    boxes.daemon.wait_for(is_gone)
    top.rmdir()


def test_huge_pages(make: Make) -> None:
    limits = [{"pageSize": "2MB", "limit": 4 * MEBI}]
    with make(resources={"hugepageLimits": limits}) as box:
        assert box.limit("hugetlb.2MB.max") == str(4 * MEBI)
        (entry,) = [each for each in box.metrics().hugetlb if each.pagesize == "2MB"]
        assert (entry.current, entry.max) == (0, 4 * MEBI)


def test_a_scope_of_systemd_has_the_limits_and_goes_well(boxes: Boxes) -> None:
    with boxes.box(
        options=options(systemd_cgroup=True),
        cgroups_path="system.slice:orlop:{id}",
        resources={"memory": {"limit": 64 * MEBI}},
    ) as box:
        unit = f"orlop-{box.id}.scope"
        assert _property(unit, "ActiveState") == "active"
        assert _property(unit, "MemoryMax") == str(64 * MEBI)
        box.update(memory={"limit": 32 * MEBI})
        assert _property(unit, "MemoryMax") == str(32 * MEBI)
    boxes.daemon.wait_for(lambda: _property(unit, "LoadState") == "not-found")


def _property(unit: str, name: str) -> str:
    command = ["systemctl", "show", "--property", name, "--value", unit]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
