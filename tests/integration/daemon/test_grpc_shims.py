"""A shim that speaks gRPC instead of ttrpc, under orlopd."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving
from tests.killing import kill

pytestmark = pytest.mark.root

RUNTIME = "io.example.relay.v1"


@pytest.fixture
def orlopd(tmp_path: Path) -> Iterator[Orlopd]:
    shim = tmp_path / "containerd-shim-relay-v1"
    here = Path(__file__).resolve().parents[3]
    command = f'{sys.executable} -m tests.relay_shim "$@"'
    shim.write_text(f"#!/bin/sh\nPYTHONPATH={here} exec {command}\n")
    shim.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(f'[runtimes]\n"{RUNTIME}" = "{shim}"\n')
    yield from serving(["--config", str(config)])


def test_the_life_of_a_container(orlopd: Orlopd, busybox: str) -> None:
    runtime = ("--runtime", RUNTIME)
    done = orlopd.ctr("run", "--rm", *runtime, busybox, "one", "echo", "by gRPC")
    assert done.stdout == "by gRPC\n"
    failed = orlopd.ctr("run", "--rm", *runtime, busybox, "two", "no-such", check=False)
    assert "executable file not found" in failed.stderr
    orlopd.ctr("run", "-d", *runtime, busybox, "three", "sleep", "1000")
    assert orlopd.ctr("tasks", "exec", "--exec-id", "e", "three", "echo", "in").stdout == "in\n"
    orlopd.ctr("tasks", "pause", "three")
    orlopd.wait_for(lambda: "PAUSED" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "resume", "three")
    orlopd.kill9()
    orlopd.start()
    orlopd.wait_for(lambda: "RUNNING" in orlopd.ctr("tasks", "ls").stdout)
    orlopd.ctr("tasks", "kill", "-s", "SIGKILL", "three")
    orlopd.wait_for(lambda: "STOPPED" in orlopd.ctr("tasks", "ls").stdout)
    assert "exit code 137" in orlopd.ctr("tasks", "rm", "three").stderr
    orlopd.ctr("containers", "rm", "three")


def test_a_shim_that_dies(orlopd: Orlopd, busybox: str) -> None:
    orlopd.ctr("run", "-d", "--runtime", RUNTIME, busybox, "one", "sleep", "1000")
    container = int(orlopd.ctr("tasks", "ls").stdout.split("one")[1].split()[0])
    behind = int(Path(f"/proc/{container}/stat").read_text().rpartition(")")[2].split()[1])
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    (relay,) = [pid for pid in pids if _is_relay(pid, str(orlopd.folder))]
    kill(relay)
    orlopd.wait_for(lambda: "one" not in orlopd.ctr("tasks", "ls").stdout)
    orlopd.wait_for(lambda: not Path(f"/proc/{container}").exists())
    kill(behind)  # of which orlopd knows nothing
    _remove_dead_sockets()
    orlopd.ctr("containers", "rm", "one")


def _is_relay(pid: int, folder: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return b"tests.relay_shim" in command and folder.encode() in environment


def _remove_dead_sockets() -> None:
    for path in Path("/run/containerd/s").glob("relay-*"):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)):
                path.unlink(missing_ok=True)
