"""What is done to a container that runs, or has run."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd
from tests.patience import patient
from tests.terminal_fixture import Terminal

pytestmark = pytest.mark.root


def test_exec(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    done = dockerd.docker(
        "exec", "--env", "CARGO=tea", "--user", "sailor", "--workdir", "/home", "boat", "sh", "-c",
        "echo $CARGO $(id -un) $PWD; echo err >&2; exit 9", check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("tea sailor /home\n", "err\n", 9)
    cargo = "x" * 300_000
    assert dockerd.docker("exec", "-i", "boat", "cat", input=cargo).stdout == cargo
    dockerd.docker("exec", "--detach", "boat", "sh", "-c", "echo later >/tmp/later")
    dockerd.wait_for(
        lambda: dockerd.docker("exec", "boat", "cat", "/tmp/later", check=False).stdout == "later\n"
    )
    missing = dockerd.docker("exec", "boat", "/no/such", check=False)
    assert missing.returncode == 126
    assert "no such file" in missing.stdout
    dockerd.wait_for(lambda: dockerd.inspect("boat")["ExecIDs"] is None)


def test_exec_on_a_terminal(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    with Terminal(dockerd.command("exec", "-it", "boat", "sh")) as terminal:
        terminal.expect(b"/ # ")
        terminal.resize(29, 91)
        terminal.type(b"until stty size | grep '29 91'; do sleep 0.1; done\r")
        terminal.expect(b"\n29 91")
        terminal.type(b"exit 4\r")
        assert terminal.wait() == 4


def test_execs_at_once(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    running = [
        subprocess.Popen(
            dockerd.command("exec", "boat", "echo", str(index)), stdout=subprocess.PIPE
        )
        for index in range(8)
    ]
    told = [process.communicate(timeout=patient(60))[0].decode().strip() for process in running]
    assert told == [str(index) for index in range(8)]


def test_logs(dockerd: Dockerd) -> None:
    dockerd.docker("run", "-d", "--name", "boat", "busybox", "sh", "-c",
                   "mkfifo /go; echo one; echo two >&2; read x </go; echo three")  # fmt: skip
    with following(dockerd, "logs", "--follow", "--timestamps", "boat") as lines:
        assert next(lines).endswith("Z one\n")
        dockerd.docker("exec", "boat", "sh", "-c", "echo >/go", check=False)  # may die with it
        assert next(lines).endswith("Z three\n")
        assert next(lines, None) is None
    shown = dockerd.docker("logs", "boat")
    assert (shown.stdout, shown.stderr) == ("one\nthree\n", "two\n")
    assert dockerd.out("logs", "--tail", "1", "boat") == "three"


@contextmanager
def following(dockerd: Dockerd, *arguments: str) -> Iterator[Iterator[str]]:
    """The lines that a command of docker prints meanwhile; it is ended at the end."""
    process = subprocess.Popen(dockerd.command(*arguments), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    limit = threading.Timer(patient(100), process.kill)
    limit.start()
    try:
        yield iter(process.stdout)
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def test_a_large_log_is_whole(dockerd: Dockerd) -> None:
    count = 50_000
    shown = dockerd.out("run", "--name", "boat", "busybox", "seq", str(count))
    assert shown.split() == [str(index + 1) for index in range(count)]
    assert dockerd.out("logs", "boat") == shown


def test_stats_and_top(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat", "--memory", "64m")
    row = json.loads(dockerd.out("stats", "--no-stream", "--format", "{{json .}}", "boat"))
    assert row["MemUsage"].endswith("/ 64MiB")
    assert int(row["PIDs"]) == 2
    processes = dockerd.out("top", "boat", "-o", "pid,args").splitlines()
    assert len(processes) == 3
    assert "sleep 1000" in processes[2]


def test_events(dockerd: Dockerd) -> None:
    with following(dockerd, "events", "--format", "{{.Status}}", "--filter", "type=container",
                   "--filter", "container=heard", "--since", "0") as lines:  # fmt: skip
        dockerd.sleeper("heard")  # a name of its own: other tests' containers are told of again
        for verb in ("pause", "unpause", "stop"):
            dockerd.docker(verb, "heard")
        dockerd.docker("rm", "heard")
        told: list[str] = []
        while "destroy" not in told[-1:]:
            told.append(next(lines).strip())
    wanted = ["create", "start", "pause", "unpause", "kill", "die", "stop", "destroy"]
    assert [each for each in told if each in wanted] == wanted


def test_pause(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    dockerd.docker("pause", "boat")
    assert dockerd.status("boat") == "paused"
    refused = dockerd.docker("exec", "boat", "true", check=False)
    assert "is paused" in refused.stderr
    dockerd.docker("unpause", "boat")
    assert dockerd.out("exec", "boat", "echo", "ahoy") == "ahoy"


def test_update(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat", "--memory", "64m")
    dockerd.docker(
        "update", "--memory", "32m", "--memory-swap", "64m", "--pids-limit", "44", "--cpu-quota",
        "30000", "--restart", "no", "boat",
    )  # fmt: skip
    shown = dockerd.out(
        "exec", "boat", "sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes"
        " pids/pids.max cpu/cpu.cfs_quota_us",
    )  # fmt: skip
    assert shown.split() == [str(32 << 20), "44", "30000"]
    assert dockerd.inspect("boat")["HostConfig"]["PidsLimit"] == 44


def test_signals_and_wait(dockerd: Dockerd) -> None:
    listen = "trap 'echo hup' HUP; trap 'exit 5' INT; echo ready; while sleep 0.1; do :; done"
    dockerd.docker("run", "-d", "--name", "boat", "busybox", "sh", "-c", listen)
    dockerd.ready("boat")
    dockerd.docker("kill", "-s", "HUP", "boat")
    dockerd.wait_for(lambda: dockerd.out("logs", "boat") == "ready\nhup")
    waiting = subprocess.Popen(dockerd.command("wait", "boat"), stdout=subprocess.PIPE, text=True)
    dockerd.docker("kill", "--signal", "SIGINT", "boat")
    assert waiting.communicate(timeout=patient(30))[0] == "5\n"
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 5
    dockerd.sleeper("ship")
    dockerd.docker("kill", "ship")
    assert dockerd.out("wait", "ship") == "137"
    refused = dockerd.docker("kill", "ship", check=False)
    assert "is not running" in refused.stderr


def test_stop_start_restart_rename(dockerd: Dockerd) -> None:
    dockerd.sleeper("boat")
    first = dockerd.inspect("boat")["State"]["Pid"]
    dockerd.docker("rename", "boat", "ship")
    dockerd.docker("restart", "--time", "5", "ship")
    dockerd.ready("ship", 2)
    second = dockerd.inspect("ship")["State"]["Pid"]
    assert second not in {0, first}
    dockerd.docker("stop", "ship")
    assert dockerd.inspect("ship")["State"]["ExitCode"] == 0
    for _ in range(3):
        dockerd.docker("start", "ship")
        assert dockerd.out("exec", "ship", "hostname") == dockerd.inspect("ship")["Id"][:12]
        dockerd.docker("stop", "--time", "0", "ship")
    assert dockerd.inspect("ship")["State"]["ExitCode"] in {0, 137}
    dockerd.docker("rm", "ship")


def test_who_does_not_listen_is_killed(dockerd: Dockerd) -> None:
    dockerd.docker("run", "-d", "--name", "boat", "busybox", "sh", "-c", "trap '' TERM; sleep 1000")
    dockerd.docker("stop", "--time", "1", "boat")
    assert dockerd.inspect("boat")["State"]["ExitCode"] == 137
    dockerd.sleeper("ship")
    dockerd.docker("rm", "--force", "ship")
    assert dockerd.out("ps", "-aq", "--filter", "name=ship") == ""


def test_attach(dockerd: Dockerd) -> None:
    """To what reads from its standard input, which outlives one who is attached."""
    dockerd.docker("run", "-di", "--name", "boat", "busybox", "sh", "-c",
                   "while read x; do [ $x != end ] || exit 6; echo aye $x; done")  # fmt: skip
    with attached(dockerd, "boat") as (say, hear):
        say("one")
        assert hear() == "aye one\n"
    assert dockerd.status("boat") == "running"
    with attached(dockerd, "boat") as (say, hear):
        say("two")
        assert hear() == "aye two\n"
        say("end")
        assert dockerd.out("wait", "boat") == "6"
    assert dockerd.out("logs", "boat") == "aye one\naye two"


@contextmanager
def attached(
    dockerd: Dockerd, name: str
) -> Iterator[tuple[Callable[[str], object], Callable[[], str]]]:
    """Says a line to a container, and hears one; it is killed at the end."""
    process = subprocess.Popen(
        dockerd.command("attach", "--sig-proxy=false", name),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin
    limit = threading.Timer(patient(100), process.kill)
    limit.start()
    try:
        yield lambda line: stdin.write(f"{line}\n"), process.stdout.readline
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def test_detach_keys(dockerd: Dockerd) -> None:
    with Terminal(dockerd.command("run", "-it", "--name", "boat", "busybox", "sh")) as terminal:
        terminal.expect(b"/ # ")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
    assert dockerd.status("boat") == "running"
    with Terminal(dockerd.command("attach", "boat")) as terminal:
        terminal.type(b"echo $((40+2))\r")
        terminal.expect(b"42")
        terminal.type(b"exit 8\r")
        assert terminal.wait() == 8


def test_twenty_at_once(dockerd: Dockerd) -> None:
    command = dockerd.command("run", "--rm", "busybox", "echo")
    running = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE) for index in range(20)
    ]
    told = [process.communicate(timeout=patient(90))[0].decode().strip() for process in running]
    assert told == [str(index) for index in range(20)]
    dockerd.wait_for(lambda: dockerd.out("ps", "-aq") == "")


def test_nothing_is_left_of_a_container(dockerd: Dockerd) -> None:
    """Neither files of its streams nor a bundle, a mount, a namespace, a link or a rule."""
    network = on_network(dockerd)
    name = dockerd.sleeper("boat", "--publish", "8080:80")
    changed = [before != now for before, now in zip(network, on_network(dockerd), strict=True)]
    assert changed == [True, True, True]
    pid = dockerd.inspect("boat")["State"]["Pid"]
    dockerd.docker("exec", "boat", "true")

    def traces() -> list[str]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        folders = (dockerd.exec_root, dockerd.engine.state)
        found = [path for folder in folders for path, *_ in os.walk(folder) if name in path]
        return found + [line for line in mounts if f"{dockerd.folder}/" in line and name in line]

    assert traces()
    dockerd.docker("rm", "--force", "boat")
    dockerd.wait_for(lambda: not traces())
    dockerd.wait_for(lambda: on_network(dockerd) == network)
    with suppress(OSError):  # or the number is another's by now
        assert name not in Path(f"/proc/{pid}/cgroup").read_text()


def on_network(dockerd: Dockerd) -> tuple[list[str], list[str], list[str]]:
    """The links that there are, the rules of address translation, and the namespaces' mounts.

    The files that those were mounted on dockerd removes once a minute.
    """
    links = dockerd.harbour.run("ip", "-o", "link").splitlines()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return (
        sorted(line.split(":")[1] for line in links),
        dockerd.harbour.run("iptables", "-t", "nat", "-S").splitlines(),
        sorted(line.split()[4] for line in mounts if f"{dockerd.exec_root}/netns/" in line),
    )
