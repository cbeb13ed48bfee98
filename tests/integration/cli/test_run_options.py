"""What `orlop run` can be told, seen from inside real containers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from orlop.client import containers
from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root


def _in(orlopd: Orlopd, busybox: str, script: str, *flags: str) -> str:
    done = orlopd.orlop("run", "--rm", *flags, busybox, "sh", "-c", script)
    return done.stdout.strip()


def test_filesystems(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("ahoy")
    mount = ("--mount", f"type=bind,src={tmp_path},dst=/in,readonly")
    assert _in(orlopd, busybox, "cat /in/note; touch /in/x 2>&1 | grep -o Read-only", *mount) == (
        "ahoyRead-only"
    )
    memory = ("--mount", "type=tmpfs,dst=/fast,tmpfs-size=4m", "--tmpfs", "/faster:size=1m")
    shown = _in(orlopd, busybox, "grep -E '/fast' /proc/mounts", *memory)
    assert "/fast tmpfs rw,nosuid,nodev,noexec,relatime,size=4096k" in shown
    assert "/faster tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k" in shown
    shm = _in(orlopd, busybox, "grep /dev/shm /proc/mounts", "--shm-size", "8m")
    assert "size=8192k" in shm


def test_limits(orlopd: Orlopd, busybox: str) -> None:
    script = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj"
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--oom-score-adj", "300")
    assert _in(orlopd, busybox, script, *flags).split() == ["100", "200", "0", "300"]
    assert _in(orlopd, busybox, "grep Cpus_allowed_list /proc/self/status",
               "--cpuset-cpus", "0").split()[-1] == "0"  # fmt: skip
    assert _in(orlopd, busybox, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
               "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shmmax=12345",
               ).split() == ["1", "12345"]  # fmt: skip
    orlopd.orlop("run", "-d", "--name", "bound", "-m", "64m", "--memory-swap", "-1",
                 "--cpu-shares", "512", busybox, "sleep", "1000")  # fmt: skip
    shown = orlopd.orlop("inspect", "bound").stdout
    assert '"shares": 512' in shown
    assert '"swap": -1' in shown
    orlopd.orlop("rm", "-f", "bound")


def test_devices(orlopd: Orlopd, busybox: str) -> None:
    script = "(: < /dev/mine) && echo read; (: > /dev/mine) && echo written; true"
    device = "/dev/fuse:/dev/mine"  # none of those that every container has
    assert _in(orlopd, busybox, script, "--device", device).split() == ["read", "written"]
    assert _in(orlopd, busybox, script, "--device", f"{device}:r").split() == ["read"]


def test_namespaces(orlopd: Orlopd, busybox: str) -> None:
    for name in ("pid", "ipc", "uts"):
        own = Path(f"/proc/self/ns/{name}").readlink()
        script = f"readlink /proc/self/ns/{name}"
        assert _in(orlopd, busybox, script) != str(own)
        assert _in(orlopd, busybox, script, f"--{name}", "host") == str(own)
    host = str(Path("/proc/self/ns/cgroup").readlink())
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    script = "readlink /proc/self/ns/cgroup"
    assert (_in(orlopd, busybox, script) == host) == (not unified)
    assert _in(orlopd, busybox, script, "--cgroupns", "host") == host
    assert _in(orlopd, busybox, script, "--cgroupns", "private") != host
    mounts = _in(orlopd, busybox, "cat /proc/mounts", "--ipc", "none")
    assert "/dev/shm" not in [each.split()[1] for each in mounts.splitlines()]


def test_namespaces_of_another_container(orlopd: Orlopd, busybox: str) -> None:
    script = "echo kept > /dev/shm/note; exec sleep 1000"
    orlopd.orlop("run", "-d", "--name", "one", "--ipc", "shareable", busybox, "sh", "-c", script)
    look = "for each in pid ipc; do readlink /proc/self/ns/$each; done; pidof sleep"
    look += "; cat /dev/shm/note"
    theirs = ("--pid", "container:one", "--ipc", "container:one")
    run = ("run", "--name", "two", *theirs, busybox, "sh", "-c", f"{look}; echo more > /dev/shm/m")
    refused = orlopd.orlop("run", "--pid", "container:nobody", busybox, "true", check=False)
    assert "nobody" in refused.stderr

    def paths() -> list[Path]:
        pid = orlopd.orlop("inspect", "-f", "{{.State.Pid}}", "one").stdout.strip()
        return [Path(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "ipc")]

    def namespaces() -> list[str]:
        return [str(path.readlink()) for path in paths()]

    orlopd.wait_for(lambda: "note" in orlopd.orlop("exec", "one", "ls", "/dev/shm").stdout)
    before = namespaces()
    assert orlopd.orlop(*run).stdout.split() == [*before, "1", "kept"]
    assert orlopd.orlop("exec", "one", "cat", "/dev/shm/m").stdout == "more\n"
    with contextlib.ExitStack() as held:
        # As long as somebody holds them, the kernel gives their numbers to no others.
        for path in paths():
            held.enter_context(path.open())
        orlopd.orlop("stop", "-t", "0.1", "one")
        refused = orlopd.orlop("start", "two", check=False)
        assert "namespace is shared, does not run" in refused.stderr
        orlopd.orlop("start", "one")
        after = namespaces()
        assert not set(before) & set(after)
    orlopd.wait_for(lambda: "note" in orlopd.orlop("exec", "one", "ls", "/dev/shm").stdout)
    assert orlopd.orlop("start", "-a", "two").stdout.split() == [*after, "1", "kept"]
    orlopd.orlop("run", "-d", "--name", "three", "--ipc", "none", busybox, "sleep", "1000")
    refused = orlopd.orlop("run", "--ipc", "container:three", busybox, "true", check=False)
    assert "has no /dev/shm" in refused.stderr
    orlopd.orlop("rm", "-f", "one", "two", "three")


def test_who_ends_while_a_task_is_made_is_not_joined(
    orlopd: Orlopd, busybox: str, tmp_path: Path
) -> None:
    """By the number of its process it may be somebody else that was joined."""
    orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
    pid = orlopd.orlop("inspect", "-f", "{{.State.Pid}}", "one").stdout.strip()
    runc = tmp_path / "runc-that-ends-it"
    runc.write_text(
        '#!/bin/sh\nrunc "$@" || exit\ncase " $* " in *" create "*)\n'
        f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done\nesac\n"
    )
    runc.chmod(0o755)
    label = 'orlop/namespaces={"ipc":"one"}'
    refused = orlopd.ctr(
        "run", "-d", "--null-io", "--runc-binary", str(runc), "--label", label, busybox, "two",
        "sleep", "1000", check=False,
    )  # fmt: skip
    assert 'container "one", whose namespaces were to be shared, has just ended' in refused.stderr
    assert "two" not in orlopd.ctr("tasks", "ls").stdout
    orlopd.orlop("rm", "-f", "one")
    orlopd.ctr("containers", "rm", "two", check=False)


def test_who_is_in_another_s_processes_ends_with_them(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
    orlopd.orlop("run", "-d", "--name", "two", "--pid", "container:one", busybox, "sleep", "1000")
    orlopd.restart()
    orlopd.orlop("kill", "one")
    assert orlopd.orlop("wait", "two").stdout == "137\n"
    orlopd.orlop("rm", "-f", "one", "two")


def test_variables_of_a_file(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\n\nONE=1\nTWO=two words\n")
    flags = ("--env-file", str(tmp_path / "env"), "-e", "ONE=over")
    assert _in(orlopd, busybox, 'echo "$ONE,$TWO"', *flags) == "over,two words"


def test_volumes_in_whatever_order(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    """What is below another's target is seen, whichever is named first."""
    for name in ("above", "below"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "note").write_text(name)
    above, below = f"{tmp_path}/above:/data", f"{tmp_path}/below:/data/inner"
    script = "cat /data/note /data/inner/note"
    for flags in (("-v", above, "-v", below), ("-v", below, "-v", above)):
        assert _in(orlopd, busybox, script, *flags) == "abovebelow"
    assert _in(orlopd, busybox, "cat /data/inner/note", "--tmpfs", "/data", "-v", below) == "below"


def test_an_entrypoint_that_is_none(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("create", "--name", "one", busybox, "true")
    orlopd.orlop("commit", "-c", 'ENTRYPOINT ["echo", "of the image"]', "one", "example.test/e:1")
    said = orlopd.orlop("run", "--rm", "example.test/e:1", "echo", "x").stdout
    assert said == "of the image echo x\n"
    said = orlopd.orlop("run", "--rm", "--entrypoint", "", "example.test/e:1", "echo", "x").stdout
    assert said == "x\n"
    orlopd.orlop("rm", "one")


def test_what_a_process_has_unasked(orlopd: Orlopd, busybox: str) -> None:
    """Not the daemon's place in the kernel's list of victims; its group among its groups."""
    assert _in(orlopd, busybox, "cat /proc/self/oom_score_adj") == "0"
    groups = _in(orlopd, busybox, "grep Groups /proc/self/status", "-u", "1000:77")
    assert groups.split() == ["Groups:", "77"]


def test_who_execs_as_another_has_that_one_s_home(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
    for flags, home in (
        ((), "/root"),
        (("-u", "sailor"), "/home/sailor"),
        (("-u", "sailor", "-e", "HOME=/tmp"), "/tmp"),
    ):
        said = orlopd.orlop("exec", *flags, "one", "sh", "-c", "echo $HOME").stdout
        assert said == f"{home}\n"
    orlopd.orlop("rm", "-f", "one")


def test_a_stop_that_makes_no_sense_changes_nothing(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "one", "--restart", "always", busybox, "sleep", "1000")
    refused = orlopd.orlop("stop", "-s", "SIGTREM", "one", check=False)
    assert refused.returncode == 1
    assert 'signal "SIGTREM" is not one that Linux has' in refused.stderr
    with orlopd.connect() as connection:
        labels = containers.get(connection, "one").labels
    assert labels["containerd.io/restart.status"] == "running"
    orlopd.orlop("stop", "-s", "SIGRTMAX-3", "one")
    orlopd.orlop("rm", "one")


def test_a_stop_signal_of_nobody_s_keeps_none_alive(orlopd: Orlopd, busybox: str) -> None:
    """An image may call it what it wants."""
    for command in (("stop", "-t", "0.1"), ("kill",)):
        orlopd.orlop("run", "-d", "--name", "one", busybox, "sleep", "1000")
        orlopd.ctr("containers", "label", "one", "io.containerd.image.config.stop-signal=SIGFOO")
        orlopd.orlop(*command, "one")
        orlopd.wait_for(lambda: orlopd.orlop("ps", "-q").stdout == "")
        orlopd.orlop("rm", "one")


def test_what_is_killed_stays_so(orlopd: Orlopd, busybox: str) -> None:
    """Unlike who gets another signal, which may be about anything."""
    script = "trap 'exit 0' USR1; echo up; while :; do sleep 0.05; done"
    orlopd.orlop("run", "-d", "--name", "one", "--restart", "always", busybox, "sh", "-c", script)

    def starts() -> int:
        return orlopd.orlop("logs", "one").stdout.count("up\n")

    orlopd.wait_for(lambda: starts() == 1)
    orlopd.orlop("kill", "-s", "USR1", "one")
    orlopd.wait_for(lambda: starts() == 2)
    orlopd.orlop("kill", "one")
    orlopd.wait_for(lambda: orlopd.orlop("ps", "-q").stdout == "")
    time.sleep(1)
    assert orlopd.orlop("ps", "-q").stdout == ""
    orlopd.orlop("rm", "one")


def test_stop_signal_and_runtime(orlopd: Orlopd, busybox: str) -> None:
    script = "trap 'echo got it; exit 5' USR1; echo up; while :; do sleep 0.05; done"
    shim = "/usr/bin/containerd-shim-runc-v2"
    orlopd.orlop("run", "-d", "--name", "one", "--stop-signal", "SIGUSR1", "--runtime", shim,
                 busybox, "sh", "-c", script)  # fmt: skip
    orlopd.wait_for(lambda: orlopd.orlop("logs", "one").stdout == "up\n")  # and knows USR1
    orlopd.orlop("stop", "one")
    assert orlopd.orlop("wait", "one").stdout == "5\n"
    assert orlopd.orlop("logs", "one").stdout == "up\ngot it\n"
    orlopd.orlop("rm", "one")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tmpfs", "relative"), "absolute path"),
        (("--mount", "type=volume,src=x,dst=/y"), "neither type=bind"),
        (("--mount", "type=bind,src=/etc,dst=/y,surprise=1"), "neither type=bind"),
        (("--device", "/dev/no-such"), 'device "/dev/no-such": No such file'),
        (("--device", "/etc/passwd"), "is no device"),
        (("--device", "/dev/null:x"), "is not /dev/NAME"),
        (("--ulimit", "nofile=5:4"), "is not NAME=SOFT"),
        (("--ulimit", "wishes=5"), "is not NAME=SOFT"),
        (("--sysctl", "kernel.panic=1"), "is not NAME=VALUE"),
        (("--net", "host", "--sysctl", "net.ipv4.ip_forward=1"), "would be the host's"),
        (("--pid", "shareable"), '--pid "shareable" is none of private, host'),
        (("--ipc", "container:"), '--ipc "container:" is none of private'),
        (("--uts", "container:x"), '--uts "container:x" is none of'),
        (("--uts", "host", "--hostname", "x"), "would be the host's"),
        (("--memory-swap", "1g"), "needs --memory"),
        (("--env-file", "/no/such"), "cannot be read"),
        (("--stop-signal", "SIGNAL"), 'signal "SIGNAL"'),
        (("--runtime", "io.example.nope.v1"), "containerd-shim-nope-v1"),
    ],
)
def test_what_makes_no_sense(
    orlopd: Orlopd, busybox: str, flags: tuple[str, ...], words: str
) -> None:
    refused = orlopd.orlop("run", "--rm", *flags, busybox, "true", check=False)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert orlopd.ctr("containers", "ls", "-q").stdout == ""
    assert orlopd.ctr("snapshots", "ls").stdout.count("\n") <= 2
