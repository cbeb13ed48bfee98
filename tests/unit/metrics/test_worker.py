from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.containers.model import Facts
from orlop.errors import InvalidArgument, Unavailable
from orlop.metrics import cgroups
from orlop.metrics.containers import Containers, Options
from orlop.metrics.family import Family, Sheet, pairs
from orlop.metrics.filesystems import Filesystems
from orlop.metrics.labels import VALUE_MAX, Labels
from orlop.metrics.processes import INTERFACES_MAX, Processes
from orlop.metrics.scraper import Outcomes
from orlop.metrics.target import Target
from orlop.metrics.worker import FAMILIES, Scrape, collect
from orlop.restart.rules import COUNT
from orlop.shim.cgroup import Cgroup
from orlop.shim.stats import Collector
from orlop.tally import Counter
from orlop.wire import cgroups_v1_pb2, cgroups_v2_pb2
from tests.metrics_fixture import Metrics

V2 = {
    "cpu.stat": "usage_usec 900\nuser_usec 600\nfrom_the_future 7\nnr_throttled 2\nbroken\n",
    "cpu.pressure": "some avg10=1.5 avg60=0.00 avg300=0.00 total=2500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nodd avg10=1 new=2\n",
    "memory.stat": "anon 4096\nnew_kind 5\npgfault 77\n",
    "memory.current": "16384\n",
    "memory.max": "max\n",
    "memory.events": "low 0\noom 3\noom_kill 4\n",
    "io.stat": "254:0 rbytes=1459200 wbytes=10 rios=5 wios=353 dbytes=0 zbytes=1\nnonsense\n",
    "pids.current": "5\n",
    "pids.max": "max\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.events": "max 9\n",
    "rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\n",
    "rdma.max": "mlx4_0 hca_handle=max hca_object=10\n",
}


def _text(sheet: Sheet) -> Metrics:
    heads = {family.name: family.head(openmetrics=False) for family in FAMILIES}
    return Metrics("".join(heads[name] + text for name, text in sheet.texts()))


def test_version_two_with_keys_that_nobody_knows(tmp_path: Path) -> None:
    for name, text in V2.items():
        (tmp_path / name).write_text(text)
    sheet = Sheet(FAMILIES)
    statistics = Collector().collect(Cgroup(unified=str(tmp_path)))
    assert cgroups.write(sheet, 'container_id="x"', statistics) == 0
    found = _text(sheet)
    assert found.one("container_cpu_usage_usec_microseconds") == 900
    assert found.one("container_cpu_usage_seconds_total") == 0.0009
    assert found.one("container_cpu_nr_throttled_total") == 2
    assert found.one("container_pressure_cpu_waiting_seconds_total") == 2.5
    assert found.one("container_pressure_cpu_stalled_seconds_total") == 1
    assert found.one("container_memory_anon_bytes", container_id="x") == 4096
    assert found.one("container_memory_usage_limit_bytes") == 2**64 - 1
    assert found.one("container_memory_oom_total") == 3
    assert found.one("container_oom_events_total") == 4
    assert found.one("container_io_wios_total", major="254", minor="0") == 353
    assert found.one("container_hugetlb_usage_bytes", page="2MB") == 2 << 20
    assert found.one("container_hugetlb_failcnt_total", page="2MB") == 9
    assert found.one("container_rdma_hca_objects", device="mlx4_0") == 2000


V1 = {
    "pids/pids.current": "3\n",
    "pids/pids.max": "no number\n",
    "cpuacct/cpuacct.usage": "5000000\n",
    "cpuacct/cpuacct.stat": "user 12\nsystem\nfuture 7\n",
    "cpu/cpu.stat": "nr_periods 10\nnr_bursts 9\nthrottled_time x\n",
    "memory/memory.stat": "cache 1\nnew_kind 2\ntotal_pgmajfault 6\nbroken\n\n",
    "memory/memory.usage_in_bytes": "100\n",
    "memory/memory.max_usage_in_bytes": "200\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\nodd 1 2\noom_kill 2\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "nonsense\n254:0 Read 4096\n"
    "254:0 Teleport 7\n254 Write 1\n254:x Write 1\nTotal 4096\n",
}


def test_version_one_with_keys_that_nobody_knows(tmp_path: Path) -> None:
    for name, text in V1.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    names = ("pids", "cpuacct", "cpu", "memory", "blkio")
    sheet = Sheet(FAMILIES)
    cgroup = Cgroup(controllers={name: str(tmp_path / name) for name in names})
    assert cgroups.write(sheet, 'container_id="x"', Collector().collect(cgroup)) == 0
    found = _text(sheet)
    assert found.one("container_pids_current") == 3
    assert found.one("container_cpu_total_nanoseconds") == 5_000_000
    assert found.one("container_cpu_usage_seconds_total") == 0.005
    assert found.one("container_cpu_user_nanoseconds") > 0
    assert found.one("container_cpu_throttle_periods_total") == 10
    assert found.one("container_memory_total_pgmajfault_bytes") == 6
    assert found.one("container_memory_usage_usage_bytes") == 100
    assert found.one("container_oom_events_total") == 2
    name = "container_blkio_io_service_bytes_recursive_bytes"
    assert found.one(name, op="Read", major="254", minor="0") == 4096


def test_no_metric_is_there_twice() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names))
    bases = [name.removesuffix("_total") for name in names]
    assert len(bases) == len(set(bases)), "OpenMetrics knows counters without their suffix"


@given(st.text(), st.text())
def test_any_label_comes_back(one: str, other: str) -> None:
    text = f"# TYPE x gauge\nx{{{pairs([('a', one), ('b', other)])}}} 1\n"
    assert Metrics(text).one("x", a=one, b=other) == 1


def test_labels() -> None:
    labels = Labels(["image", "pod", "a.b/c"])
    assert "io.kubernetes.pod.name" in labels.keys
    text = labels.of("id", "ns", "rt", "img", {"a.b/c": "v" * 5000})
    found = Metrics(f"# TYPE x gauge\nx{{{text}}} 1\n")
    assert found.one("x", label_a_b_c="v" * VALUE_MAX, image="img", pod="", runtime="rt") == 1
    with pytest.raises(InvalidArgument, match=r"a\.b"):
        Labels(["a.b", "a-b"])
    with pytest.raises(InvalidArgument, match="more than"):
        Labels([f"l{number}" for number in range(100)])


def test_too_many_of_one_thing_are_left_out() -> None:
    many = cgroups.SERIES_MAX + 44
    one = cgroups_v1_pb2.Metrics()
    one.cpu.usage.per_cpu.extend([1] * many)
    sheet = Sheet(FAMILIES)
    assert cgroups.write(sheet, 'container_id="x"', one) == 2 * 44  # in seconds, too
    assert len(_text(sheet).all("container_per_cpu_nanoseconds")) == cgroups.SERIES_MAX


def _proc(folder: Path, network: bytes) -> Path:
    for pid in ("self", "7"):
        (folder / pid / "ns").mkdir(parents=True)
        (folder / pid / "fd").mkdir()
        (folder / pid / "ns" / "net").symlink_to(f"net:[{pid}]")
    (folder / "stat").write_text("cpu 1\nbtime 1000\n")
    fields = " ".join(["S", *["0"] * 18, "500", *["0"] * 20])
    (folder / "7" / "stat").write_text(f"7 (a) b) {fields}\n")
    (folder / "7" / "net").mkdir()
    (folder / "7" / "net" / "dev").write_bytes(b"head\nhead\n" + network)
    return folder


def test_interfaces_whose_names_are_no_text(tmp_path: Path) -> None:
    counts = b" 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
    names = [b"lo", b"\xff", b"\xfe", b"a:b", b'"'] + [b"v%d" % n for n in range(INTERFACES_MAX)]
    lines = b"".join(b"  " + name + b":" + counts for name in names)
    sheet = Sheet(FAMILIES)
    processes = Processes(str(_proc(tmp_path, lines)))
    dropped = processes.write(sheet, 'container_id="x"', 7, Cgroup())
    found = _text(sheet)
    assert found.one("container_network_receive_bytes_total", interface="\\xff") == 1
    assert found.one("container_network_transmit_packets_dropped_total", interface="\\xfe") == 8
    assert found.one("container_network_receive_packets_total", interface="a:b") == 2
    assert found.one("container_start_time_seconds") == 1000 + 500 / os.sysconf("SC_CLK_TCK")
    assert not found.all("container_network_receive_bytes_total", interface="lo")
    assert dropped == 5 * 8


def test_a_job_with_what_is_gone_and_what_is_damaged(tmp_path: Path) -> None:
    health = tmp_path / "health.json"
    health.write_text('{"status": "unhealthy"}')
    targets = [
        Target("a", 'container_id="a"', 2**22 + 1),
        Target("b", 'container_id="b"', health=str(health)),
        Target(
            "c", 'container_id="c"', statistics="io.containerd.cgroups.v2.Metrics", message="/w=="
        ),
        Target("d", 'container_id="d"', statistics="io.other.Metrics"),
        Target("e", 'container_id="e"', health=str(tmp_path / "none")),
        Target("f", 'container_id="f"', 0, [("orlop_container_state", 'state="created"', 1)]),
    ]
    source, sink = os.memfd_create("source"), os.memfd_create("sink")
    try:
        os.write(source, json.dumps(targets).encode())
        answer = collect({}, [source, sink], lambda _: None)
        written = os.pread(sink, 1 << 20, 0)
    finally:
        os.close(source)
        os.close(sink)
    assert answer["failures"] == {"gone": 1, "unreadable": 2}
    assert sum(length for _, _, length in answer["parts"]) == len(written)
    assert b'container_id="b",status="unhealthy"} 1' in written
    assert b'container_id="f",state="created"} 1' in written


class NoForks:
    """A fork server that cannot: short of memory, say."""

    workers = Counter("name")

    def spawn(
        self, entry: str, args: Mapping[str, Any], fds: Sequence[int] = (), *, name: str
    ) -> int:
        raise Unavailable(f"fork {name}: no memory")


class AnyTask:
    namespace, pid, exit, known = "ns", 1, None, None
    shim = SimpleNamespace(own=True)

    def __init__(self, id: str) -> None:
        self.id = id


def test_without_workers_what_is_lost_is_counted() -> None:
    tasks: Any = SimpleNamespace(everything=lambda: [AnyTask("a"), AnyTask("b")])
    facts = {("ns", "a"): Facts("image", "runtime", "overlayfs", "key", {})}
    records: Any = SimpleNamespace(facts=lambda _: facts)
    filesystems = Filesystems(NoForks(), {}, 60)
    options = Options(Labels(), 10, Path("/none"))
    found = Containers(NoForks(), tasks, records, filesystems, options).collect()
    assert found.parts == {}
    outcomes = Outcomes(10)
    for _ in range(2):
        outcomes.take(found)
    counted = {values: count for values, count in outcomes.failures.read().items() if count}
    assert counted == {("lost",): 2, ("gone",): 2}


def test_a_count_of_restarts_that_makes_no_sense() -> None:
    """Prometheus takes none of a scrape in which one number is too large."""
    tasks: Any = SimpleNamespace(everything=lambda: [AnyTask("a"), AnyTask("b")])
    counts = {"a": "9" * 400, "b": "3"}
    facts = {
        ("ns", each): Facts("image", "runtime", "overlayfs", "key", {COUNT: count})
        for each, count in counts.items()
    }
    records: Any = SimpleNamespace(facts=lambda _: facts)
    options = Options(Labels(), 10, Path("/none"))
    containers = Containers(NoForks(), tasks, records, Filesystems(NoForks(), {}, 60), options)
    targets = containers._targets(tasks.everything(), collections.Counter())
    shown = {
        target.id: value
        for target in targets
        for name, _, value in target.facts
        if name == "orlop_container_restarts_total"
    }
    assert shown == {"a": 0, "b": 3}


def test_statistics_of_strange_shims() -> None:
    scrape = Scrape()
    told = cgroups_v2_pb2.Metrics()
    told.pids.current = 3
    sheet = scrape.sheet
    cgroups.write(sheet, 'container_id="x"', told)
    assert _text(sheet).one("container_pids_current") == 3


def test_heads() -> None:
    family = Family("x_total", "a\nb\\")
    assert family.head(openmetrics=False) == "# HELP x_total a\\nb\\\\\n# TYPE x_total counter\n"
    assert family.head(openmetrics=True).endswith("# TYPE x counter\n")
