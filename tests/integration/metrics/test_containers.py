"""What containers are said to use, against what they have really done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import disks
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.frames import Cable, cable
from tests.metrics_fixture import Metrics, Scraped, scraped
from tests.patience import patient
from tests.rest import settled, switches

MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_FRAMES, _FRAME = 2000, 1000
_HEADERS = 14 + 20 + 8  # of Ethernet, IP and ICMP


@contextmanager
def running(
    daemon: Orlopd, archive: Path, name: str, *command: str, options: tuple[str, ...] = ()
) -> Iterator[int]:
    """A container for the time of the context; its first process."""
    daemon.ctr("images", "import", str(archive))
    daemon.ctr("run", "-d", *options, BUSYBOX, name, *command)
    try:
        yield _pid(daemon, name)
    finally:
        daemon.ctr("task", "rm", "-f", name, check=False)
        daemon.ctr("container", "rm", name, check=False)


def _pid(daemon: Orlopd, name: str) -> int:
    rows = (line.split() for line in daemon.ctr("task", "ls").stdout.splitlines())
    return next(int(row[1]) for row in rows if row[0] == name)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def test_a_known_workload(tmp_path: Path, busybox_archive: Path) -> None:
    script = (
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=48; touch /disk/ready; while :; do :; done"
    )
    with (
        disks.ext4(tmp_path) as folder,
        scraped(tmp_path) as served,
        running(
            served.daemon, busybox_archive, "busy", "/bin/sh", "-c", script,
            options=("--mount", f"type=bind,src={folder},dst=/disk,options=rbind:rw"),
        ) as pid,
        cable(pid) as wire,
    ):  # fmt: skip
        daemon = served.daemon
        daemon.wait_for((folder / "ready").exists, 30)
        before = served.scrape()
        # Processor: one process, of which the kernel tells the same elsewhere.
        daemon.wait_for(lambda: _cpu_seconds(pid) > 3, 60)
        low = _cpu_seconds(pid)
        seen = served.scrape().one("container_cpu_usage_seconds_total", container_id="busy")
        high = _cpu_seconds(pid)
        assert low * 0.95 <= seen <= high * 1.05 + 0.1
        # Memory: a file in memory is all there is.
        memory = before.one("container_memory_usage_usage_bytes", container_id="busy")
        kernel = before.one("container_memory_kernel_usage_bytes", container_id="busy")
        assert memory - kernel == pytest.approx(48 * MIB, rel=0.05)
        assert before.one("container_memory_cache_bytes", container_id="busy") == pytest.approx(
            48 * MIB, rel=0.05
        )
        _check_writes(served, folder)
        wire.send(_FRAMES, _FRAME)
        here = {"container_id": "busy", "interface": "eth0"}
        daemon.wait_for(  # the kernel may have some still
            lambda: (
                served.scrape().one("container_network_receive_packets_total", **here)
                >= _FRAMES * 0.95
            )
        )
        after = served.scrape()
        got = after.one("container_network_receive_packets_total", **here)
        assert got == pytest.approx(_FRAMES, rel=0.05)
        got = after.one("container_network_receive_bytes_total", **here)
        assert got == pytest.approx(_FRAMES * _FRAME, rel=0.05)
        _check_processes(after, pid)
        _check_sent(served, wire, here)


def _check_sent(served: Scraped, wire: Cable, here: dict[str, str]) -> None:
    """A ping goes out when the last one has been answered: as many and as large as we like."""
    before = served.scrape()
    served.daemon.ctr(
        "task", "exec", "--exec-id", "sender", "busy",
        "/bin/ping", "-q", "-A", "-c", str(_FRAMES), "-s", str(_FRAME - _HEADERS), wire.meet(),
    )  # fmt: skip
    after = served.scrape()
    for what, want in (("packets", _FRAMES), ("bytes", _FRAMES * _FRAME)):
        name = f"container_network_transmit_{what}_total"
        assert after.one(name, **here) - before.one(name, **here) == pytest.approx(want, rel=0.05)
    for what in ("errors", "packets_dropped"):
        assert after.one(f"container_network_transmit_{what}_total", **here) == 0


def _check_writes(served: Scraped, folder: Path) -> None:
    """Bytes that reach a disk count where a limit is set, be it one that nothing meets."""
    major, minor = disks.numbers(folder)
    cgroup = Path(f"/sys/fs/cgroup/blkio/{served.daemon.namespace}/busy")
    (cgroup / "blkio.throttle.write_bps_device").write_text(f"{major}:{minor} {1 << 40}")
    served.daemon.ctr(
        "task", "exec", "--exec-id", "writer", "busy",
        "/bin/dd", "if=/dev/zero", "of=/disk/file", "bs=1M", "count=16", "oflag=direct",
    )  # fmt: skip
    written = served.scrape().one(
        "container_blkio_io_service_bytes_recursive_bytes",
        container_id="busy", op="Write", major=major, minor=minor,
    )  # fmt: skip
    assert written == pytest.approx(16 * MIB, rel=0.05)


def _check_processes(found: Metrics, pid: int) -> None:
    assert found.one("container_processes", container_id="busy") == 1
    assert found.one("container_threads", container_id="busy") == 1
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    assert found.one("container_file_descriptors", container_id="busy") == files
    started = found.one("container_start_time_seconds", container_id="busy")
    assert time.time() - patient(300) < started <= time.time() + 1


def test_labels_state_restarts_and_the_cap(tmp_path: Path, busybox_archive: Path) -> None:
    settings = 'labels = ["image", "name", "pod", "com.example/tier"]\nmax_containers = 2\n'
    with (
        scraped(tmp_path, settings) as served,
        running(
            served.daemon, busybox_archive, "a", "/bin/sleep", "1000",
            options=(
                "--label", 'com.example/tier=front "1"\\',
                "--label", "containerd.io/restart.count=3",
                "--label", "io.kubernetes.pod.name=web",
            ),
        ),
        running(served.daemon, busybox_archive, "b", "/bin/true"),
        running(served.daemon, busybox_archive, "c", "/bin/sleep", "1000"),
    ):  # fmt: skip
        served.daemon.wait_for(
            lambda: bool(served.scrape().all("orlop_container_state", state="stopped")), 20
        )
        found = served.scrape()
        labels = {
            "image": BUSYBOX, "name": "a", "pod": "web", "label_com_example_tier": 'front "1"\\',
            "pod_namespace": "", "namespace": served.daemon.namespace, "container_id": "a",
            "runtime": "io.containerd.runc.v2",
        }  # fmt: skip
        assert found.one("container_pids_current", **labels) >= 1  # runC may still be leaving
        assert found.one("orlop_container_restarts_total", container_id="a") == 3
        assert found.one("orlop_container_state", container_id="a", state="running") == 1
        assert found.all("container_pids_current", container_id="b") == []
        assert found.all("container_pids_current", container_id="c") == []
        assert found.one("orlop_metrics_containers") == 2
        page = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
        assert [name for name in found.kinds if f"| `{name}" not in page] == []
        assert found.one("orlop_metrics_containers_omitted") == 1
        served.scrape(openmetrics=True)


def test_no_shim_wakes(tmp_path: Path, busybox_archive: Path) -> None:
    with (
        scraped(tmp_path) as served,
        running(served.daemon, busybox_archive, "quiet", "/bin/sleep", "1000") as pid,
    ):
        keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        hands = Path(f"/proc/{keeper}/task/{keeper}/children")
        served.daemon.wait_for(lambda: hands.read_text().split() == [str(pid)], 30)
        served.daemon.wait_for(  # when runC has left it
            lambda: served.scrape().one("container_pids_current", container_id="quiet") == 1
        )
        before = settled(keeper)
        for _ in range(5):
            assert served.scrape().one("container_pids_current", container_id="quiet") == 1
        assert switches(keeper) == before


def test_shims_of_others_are_asked(tmp_path: Path, busybox_archive: Path) -> None:
    more = '[runtimes]\n"io.example.other.v2" = "/usr/bin/containerd-shim-runc-v2"\n'
    with (
        scraped(tmp_path, more=more) as served,
        running(
            served.daemon, busybox_archive, "asked", "/bin/sleep", "1000",
            options=("--runtime", "io.example.other.v2"),
        ),
    ):  # fmt: skip
        here = {"container_id": "asked", "runtime": "io.example.other.v2"}
        served.daemon.wait_for(
            lambda: served.scrape().one("container_pids_current", **here) == 1
        )  # when runC has left it
        found = served.scrape()
        assert found.one("container_cpu_usage_seconds_total", **here) > 0


def test_containers_that_end_during_scrapes(tmp_path: Path, busybox_archive: Path) -> None:
    with (
        scraped(tmp_path) as served,
        running(served.daemon, busybox_archive, "stays", "/bin/sleep", "1000"),
    ):
        daemon = served.daemon
        daemon.wait_for(  # when runC has left it
            lambda: served.scrape().one("container_pids_current", container_id="stays") == 1
        )
        command = daemon.ctr_command("run", "--rm", BUSYBOX)
        churn = subprocess.Popen(
            ["sh", "-c", 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "$@" brief-$i /bin/true; done',
             "churn", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        scrapes = 0
        while churn.poll() is None or scrapes < 3:
            found = served.scrape()
            assert found.one("container_pids_current", container_id="stays") == 1
            assert found.total("orlop_metrics_container_failures_total", reason="unreadable") == 0
            scrapes += 1
        assert churn.returncode == 0


def test_what_is_written_to_filesystems(tmp_path: Path, busybox_archive: Path) -> None:
    script = (
        "mkdir /made; dd if=/dev/zero of=/made/file bs=1M count=24; ln /made/file /made/link; "
        "sync; touch /ready; exec sleep 1000"
    )
    with (
        scraped(tmp_path, "filesystem_age = 1\n") as served,
        running(served.daemon, busybox_archive, "writer", "/bin/sh", "-c", script) as pid,
        running(served.daemon, busybox_archive, "idle", "/bin/sleep", "1000"),
    ):
        daemon, began = served.daemon, time.time()
        daemon.wait_for(Path(f"/proc/{pid}/root/ready").exists, 90)  # `sync` is of all disks
        writer = {"container_id": "writer"}

        def measured() -> float:
            return max(served.scrape().all("container_fs_measured_seconds", **writer), default=0)

        daemon.wait_for(lambda: measured() > began, 30)
        daemon.wait_for(
            lambda: bool(served.scrape().all("container_fs_inodes", container_id="idle"))
        )
        found = served.scrape()
        assert found.one("container_fs_usage_bytes", **writer) == pytest.approx(24 * MIB, rel=0.05)
        # The root, "made", the file with two names, "ready", and what runC makes to mount upon.
        made = found.one("container_fs_inodes", **writer)
        assert made == 3 + found.one("container_fs_inodes", container_id="idle")
        assert found.one("container_fs_usage_bytes", container_id="idle") < MIB
        usage = daemon.ctr("snapshots", "usage", "writer").stdout.splitlines()[1].split()
        assert float(usage[1]) == pytest.approx(24, abs=1)
        # More is seen later, not by asking more often.
        daemon.ctr("task", "exec", "--exec-id", "more", "writer", "/bin/rm", "-r", "/made")
        before = measured()
        daemon.wait_for(lambda: measured() > before, 30)
        daemon.wait_for(
            lambda: served.scrape().one("container_fs_inodes", **writer) == made - 2, 30
        )


def test_filesystems_are_not_looked_at_where_that_is_off(
    tmp_path: Path, busybox_archive: Path
) -> None:
    with (
        scraped(tmp_path, "filesystem_age = 0\n") as served,
        running(served.daemon, busybox_archive, "idle", "/bin/sleep", "1000"),
    ):
        for _ in range(3):
            found = served.scrape()
            assert found.one("container_pids_current", container_id="idle") >= 1
            assert not found.all("container_fs_usage_bytes")
        assert found.total("orlop_fork_seconds_count", name="orlop-du") == 0


def test_a_shim_that_says_nothing(tmp_path: Path, busybox_archive: Path) -> None:
    more = '[runtimes]\n"io.example.other.v2" = "/usr/bin/containerd-shim-runc-v2"\n'
    with (
        scraped(tmp_path, more=more) as served,
        running(served.daemon, busybox_archive, "stays", "/bin/sleep", "1000"),
        running(
            served.daemon, busybox_archive, "stuck", "/bin/sleep", "1000",
            options=("--runtime", "io.example.other.v2"),
        ),
    ):  # fmt: skip
        (shim,) = (
            pid for pid, name in served.daemon.processes() if name.startswith("containerd-shim")
        )
        os.kill(shim, signal.SIGSTOP)
        try:
            # Until all of its threads have stopped, one may still answer.
            served.daemon.wait_for(lambda: _all_stopped(shim))
            found = served.scrape()
        finally:
            os.kill(shim, signal.SIGCONT)
        assert found.one("container_pids_current", container_id="stays") >= 1
        assert not found.all("container_pids_current", container_id="stuck")
        assert found.one("orlop_container_state", container_id="stuck", state="unknown") == 1
        assert found.one("orlop_metrics_container_failures_total", reason="silent") == 1
        again = served.scrape()
        assert again.one("container_pids_current", container_id="stuck") >= 1
        assert again.one("orlop_metrics_container_failures_total", reason="silent") == 1


def _all_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((each / "stat").read_text().rpartition(")")[2].split()[0] == "T" for each in threads)


def test_ten_thousand_labels(tmp_path: Path, busybox_archive: Path) -> None:
    many = [f"com.example/l{number}=v{number}" for number in range(10_000)]
    options = tuple(word for each in many for word in ("--label", each))
    with (
        scraped(tmp_path, 'labels = ["com.example/l77"]\n') as served,
        running(served.daemon, busybox_archive, "labelled", "/bin/sleep", "1000", options=options),
    ):
        found = served.scrape(openmetrics=True)
        chosen = {"container_id": "labelled", "label_com_example_l77": "v77"}
        assert found.one("container_pids_current", **chosen) >= 1
        (labels,) = found.samples["container_pids_current"]
        assert len(labels) == 4
        assert len(found.text) < MIB


def test_names_that_are_no_text(tmp_path: Path, busybox_archive: Path) -> None:
    """Of an interface, a cgroup that the container made, and a program."""
    script = "odd=$(printf '/tmp/busybox\\377'); cp /bin/busybox $odd; exec $odd sleep 1000"
    strange = os.fsdecode(b"\xff\xfe")
    with (
        scraped(tmp_path) as served,
        running(
            served.daemon, busybox_archive, "odd", "/bin/sh", "-c", script,
            options=("--mount", "type=tmpfs,dst=/tmp,options=rw"),
        ) as pid,
        cable(pid),
    ):  # fmt: skip
        comm = Path(f"/proc/{pid}/comm")
        served.daemon.wait_for(lambda: b"\xff" in comm.read_bytes(), 20)
        space = [b"nsenter", b"-t", str(pid).encode(), b"-n"]
        subprocess.run([*space, b"ip", b"link", b"set", b"eth0", b"down"], check=True)
        subprocess.run([*space, b"ip", b"link", b"set", b"eth0", b"name", b'e\xff"'], check=True)
        group = Path("/sys/fs/cgroup/pids", served.daemon.namespace, "odd", strange)
        group.mkdir()
        other = subprocess.Popen(["sleep", "1000"])
        try:
            (group / "cgroup.procs").write_text(str(other.pid))
            found = served.scrape()
        finally:
            other.kill()
            other.wait()
            group.rmdir()
        assert found.one("container_processes", container_id="odd") == 2
        got = found.one(
            "container_network_receive_packets_total", container_id="odd", interface='e\\xff"'
        )
        assert got >= 0
        assert found.one("container_start_time_seconds", container_id="odd") > 0
        assert found.total("orlop_metrics_container_failures_total") == 0


def test_health(tmp_path: Path, registry: str) -> None:
    image = f"{registry}/test/busybox:latest"
    with scraped(tmp_path) as served:
        daemon = served.daemon
        daemon.orlop("pull", image)
        for name, command in (("well", "true"), ("ill", "false")):
            daemon.orlop(
                "run", "-d", "--name", name, "--network", "none", "--health-cmd", command,
                "--health-interval", "200ms", "--health-retries", "1", image, "sleep", "1000",
            )  # fmt: skip

        def told(name: str, status: str) -> list[float]:
            labels = {"container_id": name, "status": status}
            return served.scrape().all("orlop_container_health", **labels)

        try:
            daemon.wait_for(lambda: told("well", "healthy") == [1], 30)
            daemon.wait_for(lambda: told("ill", "unhealthy") == [1], 30)
            assert told("well", "unhealthy") == told("ill", "healthy") == [0]
        finally:
            daemon.orlop("rm", "-f", "well", "ill")


def test_filesystems_that_are_hard_to_measure(tmp_path: Path, busybox_archive: Path) -> None:
    """One deeper than any path is long, as a hostile container makes it, and one that is away."""
    with (
        scraped(tmp_path, "filesystem_age = 1\n") as served,
        running(served.daemon, busybox_archive, "deep", "/bin/sleep", "1000") as pid,
        running(served.daemon, busybox_archive, "away", "/bin/sleep", "1000"),
        _away(served.daemon, "away"),
        running(served.daemon, busybox_archive, "idle", "/bin/sleep", "1000"),
    ):
        _dig(f"/proc/{pid}/root")
        inodes = "container_fs_inodes"

        def all_known() -> bool:
            found = served.scrape()
            idle = found.all(inodes, container_id="idle")
            return bool(idle) and found.all(inodes, container_id="deep") == [idle[0] + _DEEP]

        served.daemon.wait_for(all_known, 30)
        failures = "orlop_metrics_container_failures_total"
        served.daemon.wait_for(lambda: served.scrape().total(failures, reason="unmeasured") > 0)
        found = served.scrape()
        assert not found.all(inodes, container_id="away")
        assert found.one("container_pids_current", container_id="away") >= 1
        assert found.one("orlop_metrics_container_failures_total", reason="unmeasured") >= 1


_DEEP = 30


@contextmanager
def _away(daemon: Orlopd, container: str) -> Iterator[None]:
    """What a container has written cannot be found for the time of the context."""
    mount = daemon.ctr("snapshots", "mounts", "/none", container).stdout
    upper = Path(re.findall(r"upperdir=([^, ]+)", mount)[0])
    elsewhere = upper.with_name("elsewhere")
    upper.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(upper)


def _dig(folder: str) -> None:
    """Make folders in one another whose path has more than the 4,096 bytes of any (PATH_MAX)."""
    name = "d" * 200
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(_DEEP):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
