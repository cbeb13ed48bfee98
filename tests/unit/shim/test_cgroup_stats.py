"""Statistics from sample trees of cgroup files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orlop.errors import NotFound
from orlop.shim import stats
from orlop.shim.cgroup import Cgroup, of_process
from orlop.wire import cgroups_v1_pb2, cgroups_v2_pb2

V2 = {
    "cgroup.procs": "12\n7\n",
    "pids.current": "5\n",
    "pids.max": "max\n",
    "cpu.stat": "usage_usec 900\nuser_usec 600\nsystem_usec 300\ncore_sched.force_idle_usec 0\n"
    "nr_periods 3\nnr_throttled 2\nthrottled_usec 11\nnr_bursts 0\nburst_usec 0\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=1000\n",
    "memory.stat": "anon 4096\nfile 8192\nkernel_stack 16\npgfault 77\nworkingset_refault_anon 1\n",
    "memory.current": "16384\n",
    "memory.max": "max\n",
    "memory.peak": "20000\n",
    "memory.swap.current": "0\n",
    "memory.swap.max": "1048576\n",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
    "io.stat": "254:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:16 \n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.events": "max 9\n",
    "rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\n",
    "rdma.max": "mlx4_0 hca_handle=max hca_object=max\n",
}
V1 = {
    "pids/pids.current": "3\n",
    "pids/pids.max": "max\n",
    "cpuacct/cpuacct.usage": "5000000\n",
    "cpuacct/cpuacct.usage_percpu": "2000000 3000000 \n",
    "cpuacct/cpuacct.stat": "user 12\nsystem 34\n",
    "cpu/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 99\n",
    "memory/memory.stat": "cache 1\nrss 2\npgpgin 3\nswap 4\nhierarchical_memsw_limit 5\n"
    "total_pgmajfault 6\n",
    "memory/memory.usage_in_bytes": "100\n",
    "memory/memory.max_usage_in_bytes": "200\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.failcnt": "1\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "blkio/blkio.bfq.io_service_bytes_recursive": "Total 0\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "254:0 Read 4096\n254:0 Write 512\n"
    "254:0 Total 4608\nTotal 4608\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "7\n",
}


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_version_two(tmp_path: Path) -> None:
    message = stats.collect(Cgroup(unified=str(tree(tmp_path, V2))))
    assert isinstance(message, cgroups_v2_pb2.Metrics)
    assert (message.pids.current, message.pids.limit) == (5, 2**64 - 1)
    assert (message.cpu.usage_usec, message.cpu.user_usec, message.cpu.nr_throttled) == (
        900,
        600,
        2,
    )
    assert (message.cpu.psi.some.avg10, message.cpu.psi.full.total) == (1.5, 1000)
    assert (message.memory.anon, message.memory.pgfault, message.memory.usage) == (4096, 77, 16384)
    assert (message.memory.usage_limit, message.memory.swap_limit) == (2**64 - 1, 1 << 20)
    assert message.memory.max_usage == 20000
    assert (message.memory_events.oom_kill, message.memory_events.oom_group_kill) == (4, 5)
    first, second = message.io.usage
    assert (first.major, first.minor, first.rbytes, first.wios) == (254, 0, 1459200, 353)
    assert (second.major, second.rbytes) == (8, 0)
    (huge,) = message.hugetlb
    assert (huge.pagesize, huge.current, huge.max, huge.failcnt) == ("2MB", 2 << 20, 2**64 - 1, 9)
    assert (message.rdma.current[0].hca_objects, message.rdma.limit[0].hca_handles) == (
        2000,
        2**32 - 1,
    )


def test_version_one(tmp_path: Path) -> None:
    tree(tmp_path, V1)
    names = ("pids", "cpuacct", "cpu", "memory", "blkio", "hugetlb")
    message = stats.collect(Cgroup(controllers={name: str(tmp_path / name) for name in names}))
    assert isinstance(message, cgroups_v1_pb2.Metrics)
    assert (message.pids.current, message.pids.limit) == (3, 0)
    assert message.cpu.usage.total == 5_000_000
    assert list(message.cpu.usage.per_cpu) == [2_000_000, 3_000_000]
    assert (message.cpu.usage.user, message.cpu.usage.kernel) == (120_000_000, 340_000_000)
    assert message.cpu.throttling.throttled_periods == 4
    memory = message.memory
    assert (memory.rss, memory.pg_pg_in, memory.hierarchical_swap_limit) == (2, 3, 5)
    assert (memory.total_pg_maj_fault, memory.usage.max, memory.usage.failcnt) == (6, 200, 1)
    assert not memory.HasField("swap")
    assert message.memory_oom_control.oom_kill == 2
    entries = message.blkio.io_service_bytes_recursive
    assert [(entry.op, entry.major, entry.value) for entry in entries] == [
        ("Read", 254, 4096),
        ("Write", 254, 512),
        ("Total", 254, 4608),
    ]
    assert message.hugetlb[0].usage == 7


def test_no_cgroup(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        stats.collect(Cgroup(unified=str(tmp_path / "gone")))
    with pytest.raises(NotFound):
        stats.collect(Cgroup())


def test_where_a_process_is(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"7/cgroup": "4:cpu,cpuacct:/a/b\n1:name=systemd:/c\n0::/d\n"})
    root = str(tmp_path / "v1")
    found = of_process(7, root, str(proc))
    assert found.unified is None
    assert found.controllers == {
        "cpu": f"{root}/cpu/a/b",
        "cpuacct": f"{root}/cpuacct/a/b",
        "systemd": f"{root}/systemd/c",
    }
    unified = tree(tmp_path / "v2", {"cgroup.controllers": "cpu\n"})
    tree(unified / "d", V2)
    tree(unified / "d/nested", {"cgroup.procs": "9\n"})
    found = of_process(7, str(unified), str(proc))
    assert found.unified == str(unified / "d")
    assert found.pids() == [7, 9, 12]
    assert not of_process(8, root, str(proc)).exists()


def test_one_that_goes_in_the_middle(tmp_path: Path) -> None:
    """What this kernel has is not learnt from it."""
    (tmp_path / "gone").mkdir()
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    try:
        (tmp_path / "gone").rmdir()
        with pytest.raises(NotFound):
            stats.Folder(fd).names()
    finally:
        os.close(fd)
