"""Debian's ctr against orlopd: running containers, through runC, by our shim and by Debian's."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containerd_fixture import Containerd, run_containerd
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing
from tests.lent_daemon import Lender
from tests.patience import patient
from tests.shims_fixture import DEBIANS, OWN, serving_by

pytestmark = pytest.mark.root


NO_PROGRAM = re.compile(r"executable file (`.*` )?not found")  # crun names it


@pytest.fixture(params=[OWN, DEBIANS, "under-containerd"])
def orlopd(
    request: pytest.FixtureRequest, tmp_path: Path, lender: Lender
) -> Iterator[Orlopd | Containerd]:
    """An orlopd that runs containers by one shim or the other, or a containerd with our shim."""
    if request.param == "under-containerd":
        (tmp_path / "containerd").mkdir()
        with run_containerd(tmp_path / "containerd", own_shim=True) as containerd:
            yield containerd
            containerd.assert_clean()
        return
    yield from serving_by(request, lender)


@pytest.fixture
def sleeper(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    """A detached container that sleeps."""
    name = f"sleeper-{time.monotonic_ns()}"
    orlopd.ctr("run", "-d", busybox, name, "sleep", "1000")
    yield name
    orlopd.ctr("tasks", "rm", "-f", name, check=False)
    orlopd.ctr("containers", "rm", name)


def test_it_is_the_shim_that_we_mean(
    orlopd: Orlopd, sleeper: str, request: pytest.FixtureRequest
) -> None:
    pid = orlopd.ctr("tasks", "ls").stdout.split(sleeper)[1].split()[0]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    debians = "debians-shim" in request.node.name
    expected = "containerd-shim" if debians else "orlop-shim"
    assert Path(f"/proc/{parent}/comm").read_text().strip() == expected


def _run(orlopd: Orlopd, busybox: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return orlopd.ctr("run", "--rm", *options, busybox, "job", *command).stdout


def test_run_rm_passes_output_and_status(orlopd: Orlopd, busybox: str) -> None:
    assert _run(orlopd, busybox, "echo", "ahoy") == "ahoy\n"
    failed = orlopd.ctr("run", "--rm", busybox, "job", "sh", "-c", "exit 7", check=False)
    assert failed.returncode == 7
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""
    assert orlopd.ctr("tasks", "ls", "-q").stdout == ""


def test_run_env_read_only(orlopd: Orlopd, busybox: str) -> None:
    assert (
        _run(orlopd, busybox, "sh", "-c", "echo $CARGO", options=("--env", "CARGO=tea")) == "tea\n"
    )
    refused = orlopd.ctr("run", "--rm", "--read-only", busybox, "job", "touch", "/x", check=False)
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr


def test_run_mount_and_host_network(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from the host")
    mount = f"type=bind,src={tmp_path},dst=/mnt,options=rbind:ro"
    assert _run(orlopd, busybox, "cat", "/mnt/note", options=("--mount", mount)) == "from the host"
    inside = _run(orlopd, busybox, "readlink", "/proc/self/ns/net", options=("--net-host",))
    assert inside.strip() == str(Path("/proc/self/ns/net").readlink())


def _await_listed(orlopd: Orlopd, pattern: str) -> None:
    """Who does not tell its state in two seconds is not in a list."""
    orlopd.wait_for(lambda: bool(re.search(pattern, orlopd.ctr("tasks", "ls").stdout)))


def _cgroup_file(pid: str, controller: str, v1: str, v2: str) -> str:
    """A limit of a process, from the host's side, on whichever cgroup version it has."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{v1}").read_text()
    path = Path(f"/proc/{pid}/cgroup").read_text().split(":", 2)[2].strip()
    return Path(f"/sys/fs/cgroup{path}/{v2}").read_text()


def test_run_limits(orlopd: Orlopd, busybox: str) -> None:
    limits = ("--memory-limit", "67108864", "--cpus", "0.5")
    orlopd.ctr("run", "-d", *limits, busybox, "limited", "sleep", "1000")
    pid = orlopd.ctr("tasks", "ls").stdout.split("limited")[1].split()[0]
    memory = _cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max")
    assert memory.strip() == "67108864"
    assert "50000" in _cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
    orlopd.ctr("tasks", "rm", "-f", "limited", check=False)
    orlopd.ctr("containers", "rm", "limited")


def test_run_privileged(orlopd: Orlopd, busybox: str) -> None:
    caps = _run(orlopd, busybox, "grep", "CapBnd", "/proc/self/status", options=("--privileged",))
    plain = _run(orlopd, busybox, "grep", "CapBnd", "/proc/self/status")
    assert int(caps.split()[1], 16) > int(plain.split()[1], 16)


def test_run_rootfs(orlopd: Orlopd, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    subprocess.run(["cp", "/bin/busybox", str(tmp_path / "bin/sh")], check=True)
    shown = orlopd.ctr(
        "run", "--rm", "--rootfs", str(tmp_path), "plain", "/bin/sh", "-c", "echo bare"
    )
    assert shown.stdout == "bare\n"


def test_run_with_terminal(orlopd: Orlopd, busybox: str, request: pytest.FixtureRequest) -> None:
    # Debian's shim may drop what is said in the last moment, on a busy machine.
    pause = "sleep 1; " if "debians-shim" in request.node.name else ""
    talk = f"tty; {pause}exit 3"
    command = orlopd.ctr_command("run", "--rm", "-t", busybox, "job", "sh", "-c", talk)
    shown = subprocess.run(
        ["script", "-qec", " ".join(f"'{word}'" for word in command), "/dev/null"],
        capture_output=True, text=True, timeout=patient(60), check=False,
    )  # fmt: skip
    assert "/dev/pts/0" in shown.stdout
    assert shown.returncode == 3


def test_tasks_start_ls_kill(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("containers", "create", busybox, "made", "sleep", "1000")
    orlopd.ctr("tasks", "start", "-d", "made")
    _await_listed(orlopd, r"made\s+\d+\s+RUNNING")
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "made")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
    assert "exit code 137" in orlopd.ctr("tasks", "rm", "made").stderr
    orlopd.ctr("containers", "rm", "made")


def test_a_running_task_is_not_removed(orlopd: Orlopd, sleeper: str) -> None:
    refused = orlopd.ctr("tasks", "rm", sleeper, check=False)
    assert refused.returncode != 0
    refused = orlopd.ctr("containers", "rm", sleeper, check=False)
    assert refused.returncode != 0


def test_exec(orlopd: Orlopd, sleeper: str) -> None:
    shown = orlopd.ctr("tasks", "exec", "--exec-id", "e1", sleeper, "echo", "below")
    assert shown.stdout == "below\n"
    shown = orlopd.ctr("tasks", "exec", "--exec-id", "e0", "--user", "1000", sleeper, "id", "-u")
    assert shown.stdout == "1000\n"
    failed = orlopd.ctr(
        "tasks", "exec", "--exec-id", "e2", sleeper, "sh", "-c", "exit 9", check=False
    )
    assert failed.returncode == 9
    missing = orlopd.ctr("tasks", "exec", "--exec-id", "e3", sleeper, "no-such", check=False)
    assert missing.returncode != 0
    assert NO_PROGRAM.search(missing.stderr)


def test_exec_reads_stdin_to_its_end(orlopd: Orlopd, sleeper: str) -> None:
    shown = orlopd.ctr(
        "tasks", "exec", "--exec-id", "cat", sleeper, "sh", "-c", "wc -c", input="x" * 100_000
    )
    assert shown.stdout.strip() == "100000"


def test_pause_and_resume(orlopd: Orlopd, sleeper: str) -> None:
    orlopd.ctr("tasks", "pause", sleeper)
    _await_listed(orlopd, rf"{sleeper}\s+\d+\s+PAUSED")
    orlopd.ctr("tasks", "resume", sleeper)
    _await_listed(orlopd, rf"{sleeper}\s+\d+\s+RUNNING")


def test_ps_and_metrics(orlopd: Orlopd, sleeper: str) -> None:
    assert orlopd.ctr("tasks", "ps", sleeper).stdout.count("\n") >= 2
    assert "memory" in orlopd.ctr("tasks", "metrics", sleeper).stdout


def test_attach_sees_the_output(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("containers", "create", busybox, "talker", "head", "-n1")
    start = subprocess.Popen(
        orlopd.ctr_command("tasks", "start", "talker"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
    attached = subprocess.Popen(
        orlopd.ctr_command("tasks", "attach", "talker"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5)
    output, _ = start.communicate("ahoy\n", timeout=patient(30))
    seen, _ = attached.communicate(timeout=patient(30))
    assert "ahoy" in output + seen
    orlopd.ctr("containers", "rm", "talker")


def test_command_that_does_not_exist(orlopd: Orlopd, busybox: str) -> None:
    failed = orlopd.ctr("run", "--rm", busybox, "job", "no-such-command", check=False)
    assert failed.returncode != 0
    assert NO_PROGRAM.search(failed.stderr)
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""
    assert orlopd.ctr("tasks", "ls", "-q").stdout == ""


def test_events_in_order(orlopd: Orlopd, busybox: str) -> None:
    with hearing(orlopd) as heard:
        orlopd.ctr("run", "--rm", busybox, "evented", "true")
        last = {"/containers/delete", "/tasks/delete"}  # which a shim may tell after its answer
        orlopd.wait_for(lambda: last <= set(heard.topics()))
        topics = heard.topics()
    tasks = [topic for topic in topics if topic.startswith("/tasks/")]
    assert tasks == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert "/snapshot/prepare" in topics
    assert "/containers/create" in topics
