"""`docker run` in all shapes: what a container gets is what was asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd, identifier
from tests.glutton import EAT
from tests.terminal_fixture import Terminal

pytestmark = pytest.mark.root


def run(dockerd: Dockerd, *arguments: str) -> str:
    """What a container prints that is removed at its end; options and command in one."""
    options = arguments[:-1]
    return dockerd.out("run", "--rm", *options, "busybox", "sh", "-c", arguments[-1])


def test_output_status_and_removal(dockerd: Dockerd) -> None:
    done = dockerd.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert dockerd.out("ps", "--all", "--quiet") == ""


def test_what_cannot_be_started_says_why(dockerd: Dockerd) -> None:
    missing = dockerd.docker("run", "--rm", "busybox", "/no/such", check=False)
    assert missing.returncode == 127
    assert "no such file or directory" in missing.stderr
    refused = dockerd.docker("run", "--rm", "busybox", "/etc/passwd", check=False)
    assert refused.returncode == 126
    assert "permission denied" in refused.stderr
    assert dockerd.out("ps", "--all", "--quiet") == ""


def test_detached(dockerd: Dockerd) -> None:
    assert identifier(dockerd.out("run", "-d", "--name", "boat", "busybox", "echo", "ahoy"))
    assert dockerd.out("wait", "boat") == "0"
    assert dockerd.out("logs", "boat") == "ahoy"


def test_stdin_is_passed_on_and_closed(dockerd: Dockerd) -> None:
    cargo = "".join(f"crate {index}\n" for index in range(20_000))
    assert dockerd.docker("run", "-i", "--rm", "busybox", "cat", input=cargo).stdout == cargo
    assert run(dockerd, "cat; echo end") == "end"


def test_terminal(dockerd: Dockerd) -> None:
    with Terminal(dockerd.command("run", "-it", "--rm", "busybox", "sh")) as terminal:
        terminal.resize(31, 97)
        terminal.expect(b"/ # ")
        # The size comes by a call of its own, which may be late.
        terminal.type(b"until stty size | grep 97; do sleep 0.1; done; tty; echo $((6*7))\r")
        terminal.expect(b"31 97")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"42")
        terminal.type(b"exit 3\r")
        assert terminal.wait() == 3


def test_limits(dockerd: Dockerd) -> None:
    paths = "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpu/cpu.shares"
    shown = run(
        dockerd, "--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", "--cpu-shares", "512",
        "--ulimit", "nofile=99:100", f"cd /sys/fs/cgroup; cat {paths}; ulimit -n",
    )  # fmt: skip
    assert shown.split() == [str(64 << 20), "33", "50000", "512", "99"]


def test_out_of_memory_is_noticed(dockerd: Dockerd) -> None:
    dockerd.docker(
        "run", "--name", "glutton", "--memory", "16m", "--memory-swap", "16m", "busybox", "sh",
        "-c", f"sleep 1; {EAT}; sleep 1; exit 3", check=False,
    )  # fmt: skip
    state = dockerd.inspect("glutton")["State"]
    assert state["ExitCode"] == 3
    dockerd.wait_for(lambda: bool(dockerd.inspect("glutton")["State"]["OOMKilled"]))


def test_capabilities(dockerd: Dockerd) -> None:
    effective = "sed -n 's/^CapEff:.//p' /proc/self/status"
    usual = int(run(dockerd, effective), 16)
    assert usual == 0xA80425FB
    net_admin, chown = 1 << 12, 1
    shown = run(dockerd, "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", effective)
    assert int(shown, 16) == usual & ~chown | net_admin
    assert int(run(dockerd, "--cap-drop", "ALL", effective), 16) == 0


def test_seccomp(dockerd: Dockerd, tmp_path: Path) -> None:
    mode = "sed -n 's/^Seccomp:.//p' /proc/self/status"
    assert run(dockerd, mode) == "2"
    assert run(dockerd, "--security-opt", "seccomp=unconfined", mode) == "0"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    refused = dockerd.docker(
        "run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x", check=False
    )
    assert "Operation not permitted" in refused.stderr


def test_no_new_privileges(dockerd: Dockerd) -> None:
    shown = run(dockerd, "--security-opt", "no-new-privileges", "grep NoNewPrivs /proc/self/status")
    assert shown.split()[1] == "1"


def test_root_file_system_users_and_environment(dockerd: Dockerd, tmp_path: Path) -> None:
    assert "Read-only" in run(dockerd, "--read-only", "touch /x 2>&1; true")
    assert run(dockerd, "--user", "sailor", "id -un; id -gn").split() == ["sailor", "sailor"]
    assert run(dockerd, "--user", "1234:50", "--group-add", "7", "id -u; id -G") == "1234\n50 7"
    (tmp_path / "env").write_text("CARGO=tea\n")
    shown = run(
        dockerd, "--env", "PORT=Hull", "--env-file", str(tmp_path / "env"), "--workdir", "/home",
        "--hostname", "deck", "--domainname", "sea", "echo $PORT $CARGO $PWD; hostname; hostname -d"
    )  # fmt: skip
    assert shown.split()[:4] == ["Hull", "tea", "/home", "deck"]


def test_mounts(dockerd: Dockerd, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("from the host")
    shown = run(
        dockerd, "-v", f"{tmp_path}:/here", "-v", f"{tmp_path}:/there:ro", "-v", "hold:/hold",
        "--tmpfs", "/scratch:size=1m", "--mount", "type=tmpfs,dst=/more",
        "cat /here/note; touch /there/x 2>&1; echo 1 >/hold/x; echo back >/here/reply;"
        "grep -c ' /scratch tmpfs.*size=1024k' /proc/mounts; grep -c ' /more ' /proc/mounts",
    )  # fmt: skip
    assert shown.startswith("from the host")
    assert "Read-only file system" in shown
    assert shown.split()[-2:] == ["1", "1"]
    assert (tmp_path / "reply").read_text() == "back\n"
    assert run(dockerd, "-v", "hold:/hold:ro", "cat /hold/x") == "1"


def test_init(dockerd: Dockerd) -> None:
    assert "docker-init" in run(dockerd, "--init", "cat /proc/1/cmdline | tr '\\0' ' '")
    look = "n=0; while ps -o stat | grep -q Z && [ $((n=n+1)) -lt 200 ]; do sleep 0.1; done"
    zombies = f"(sleep 0 & exec true) & sleep 0.3; {look}; ps -o stat | grep -c Z; true"
    assert run(dockerd, "--init", zombies) == "0"


def test_namespaces_of_others(dockerd: Dockerd) -> None:
    def shared(name: str, *options: str) -> str:
        return run(dockerd, *options, f"readlink /proc/self/ns/{name}")

    def of_host(name: str) -> str:
        return str(Path(f"/proc/self/ns/{name}").readlink())

    assert shared("pid", "--pid=host") == of_host("pid")
    assert shared("ipc", "--ipc=host") == of_host("ipc")
    assert shared("uts", "--uts=host") == of_host("uts")
    dockerd.sleeper("boat", "--ipc=shareable")
    for name in ("pid", "ipc", "net"):
        own = dockerd.out("exec", "boat", "readlink", f"/proc/self/ns/{name}")
        option = {"net": "network"}.get(name, name)
        assert shared(name, f"--{option}=container:boat") == own


def test_devices(dockerd: Dockerd) -> None:
    shown = run(
        dockerd, "--device", "/dev/fuse:/dev/flint:r", "--shm-size", "2m", "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=7", "--oom-score-adj", "7",
        ": </dev/flint && echo open; (: >/dev/flint) 2>&1 | grep -o 'not permitted';"
        "df /dev/shm | tail -1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start;"
        "cat /proc/self/oom_score_adj",
    )  # fmt: skip
    lines = shown.splitlines()
    assert lines[:2] == ["open", "not permitted"]
    assert lines[2].split()[1] == "2048"
    assert lines[3:] == ["7", "7"]


def test_cidfile_labels_and_runtimes(dockerd: Dockerd, tmp_path: Path) -> None:
    """runC by each of the names that dockerd has for it."""
    for runtime in ("runc", "io.containerd.runc.v2"):
        path = tmp_path / runtime
        shown = dockerd.out(
            "run", "--runtime", runtime, "--cidfile", str(path), "--label", "deck=low",
            "--name", "boat", "busybox", "hostname",
        )  # fmt: skip
        assert path.read_text().startswith(shown)
        listed = dockerd.out("ps", "-aq", "--no-trunc", "--filter", "label=deck=low")
        assert listed == path.read_text()
        dockerd.docker("rm", "boat")


def test_restart_policies(dockerd: Dockerd, tmp_path: Path) -> None:
    count = "echo x >>/log/runs; exit 5"
    dockerd.docker("run", "-d", "--name", "boat", "--restart", "on-failure:2", "-v",
                   f"{tmp_path}:/log", "busybox", "sh", "-c", count)  # fmt: skip
    dockerd.wait_for(lambda: dockerd.status("boat") == "exited", 30)
    assert (tmp_path / "runs").read_text() == "x\n" * 3
    assert dockerd.inspect("boat")["RestartCount"] == 2
    dockerd.sleeper("ship", "--restart", "always")
    pid = dockerd.inspect("ship")["State"]["Pid"]
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    dockerd.wait_for(lambda: dockerd.inspect("ship")["State"]["Pid"] not in {0, pid})
    dockerd.docker("stop", "--time", "5", "ship")
    assert dockerd.status("ship") == "exited"


def test_healthcheck(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat", "--health-cmd", "test -e /tmp/afloat || { echo leaking; false; }",
                    "--health-interval", "300ms", "--health-retries", "2")  # fmt: skip

    def health() -> str:
        return dockerd.out("inspect", "--format", "{{.State.Health.Status}}", "boat")

    dockerd.wait_for(lambda: health() == "unhealthy", 30)
    assert dockerd.inspect("boat")["State"]["Health"]["Log"][-1]["Output"] == "leaking\n"
    dockerd.docker("exec", "boat", "touch", "/tmp/afloat")
    dockerd.wait_for(lambda: health() == "healthy", 30)
