"""Control groups where v1 has the controllers, and v2 is mounted beside it."""

from __future__ import annotations

from pathlib import Path

from orlop.wire import cgroups_v1_pb2
from orlop.wire.services import tasks_pb2
from tests.integration.shim.harness import wait_until
from tests.vm.boxes import CGROUPS, Box, Boxes, Make, options

MEBI = 1 << 20


def _folder(box: Box, controller: str) -> Path:
    for line in Path(f"/proc/{box.pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return CGROUPS / controller / path.lstrip("/")
    raise AssertionError(f"no cgroup of {controller}")


def _metrics(box: Box) -> cgroups_v1_pb2.Metrics:
    answer = box.connection.tasks.metrics(tasks_pb2.MetricsRequest(filters=[f"id=={box.id}"]))
    (metric,) = answer.metrics
    assert metric.data.type_url.endswith("io.containerd.cgroups.v1.Metrics")
    return cgroups_v1_pb2.Metrics.FromString(metric.data.value)


def test_both_versions_are_mounted() -> None:
    assert (CGROUPS / "unified/cgroup.controllers").read_text().split() == []
    mounts = Path("/proc/self/mounts").read_text()
    assert "/sys/fs/cgroup/memory cgroup rw" in mounts
    assert "/sys/fs/cgroup/unified cgroup2 rw" in mounts


def test_limits_their_update_and_metrics(make: Make, boxes: Boxes) -> None:
    limits = {"memory": {"limit": 64 * MEBI}, "pids": {"limit": 50}}
    with make(resources=limits) as box:
        memory = _folder(box, "memory")
        expected = f"{boxes.daemon.namespace}/{box.id}", f"system.slice/orlop-{box.id}.scope"
        assert str(memory.relative_to(CGROUPS / "memory")) in expected
        assert (memory / "memory.limit_in_bytes").read_text().strip() == str(64 * MEBI)
        metrics = _metrics(box)
        assert metrics.memory.usage.limit == 64 * MEBI
        assert (metrics.pids.current, metrics.pids.limit) == (1, 50)
        assert metrics.cpu.usage.total > 0
        box.update(
            memory={"limit": 32 * MEBI},
            cpu={"quota": 20_000, "period": 100_000, "shares": 512, "cpus": "1"},
            pids={"limit": 7},
        )
        assert (memory / "memory.limit_in_bytes").read_text().strip() == str(32 * MEBI)
        cpu = _folder(box, "cpu")
        assert (cpu / "cpu.cfs_quota_us").read_text().strip() == "20000"
        assert (cpu / "cpu.shares").read_text().strip() == "512"
        assert (_folder(box, "cpuset") / "cpuset.cpus").read_text().strip() == "1"
        assert _metrics(box).pids.limit == 7


def test_pause_and_resume(make: Make) -> None:
    with make() as box:
        state = _folder(box, "freezer") / "freezer.state"
        box.connection.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=box.id))
        assert (state.read_text().strip(), box.status()) == ("FROZEN", "PAUSED")
        box.connection.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=box.id))
        assert (state.read_text().strip(), box.status()) == ("THAWED", "RUNNING")


def test_all_processes_are_seen(make: Make) -> None:
    with make("sh", "-c", "sleep 1000 & exec sleep 1000") as box:

        def pids() -> int:
            request = tasks_pb2.ListPidsRequest(container_id=box.id)
            return len(box.connection.tasks.list_pids(request).processes)

        wait_until(lambda: pids() == 2)


def test_out_of_memory(make: Make, boxes: Boxes) -> None:
    with boxes.starved(make) as box:
        assert _folder(box, "memory").is_dir()


def test_a_cgroup_for_the_shim(boxes: Boxes) -> None:
    path = f"/{boxes.daemon.namespace}-shims"
    with boxes.box(options=options(shim_cgroup=path)) as box:
        stat = Path(f"/proc/{box.pid}/stat").read_text()
        shim = int(stat.rpartition(")")[2].split()[1])
        lines = Path(f"/proc/{shim}/cgroup").read_text().splitlines()
        assert all(line.endswith(path) for line in lines if not line.startswith("0::"))
        assert not str(_folder(box, "memory")).endswith(path)
