"""The shim as an ordinary binary under Debian's containerd, with Debian's ctr."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.sys.mount import unmount_all
from orlop.wire.types_pb2 import RuntimeInfo
from tests.daemon_fixture import remove_namespace
from tests.integration.shim.harness import name_of, process_exists, wait_until
from tests.killing import kill

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd"),
]

BIN = Path(sys.executable).parent
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/c.sock.ttrpc"
"""


class Containerd:
    """A private containerd that finds our shim binary in its PATH."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self._folder = folder
        self._rootfs = rootfs
        self._process: subprocess.Popen[bytes] | None = None
        # Runtime state and cgroups go by namespace and container, whoever the daemon is.
        self.namespace = folder.name.replace("_", "x")
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))

    def start(self) -> None:
        env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        with (self._folder / "log").open("ab") as log:
            argv = ["containerd", "-c", str(self._folder / "config.toml")]
            self._process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
        wait_until(lambda: self.ctr("version").returncode == 0)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ctr(self, *args: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = ["ctr", "-a", str(self._folder / "c.sock"), "-n", self.namespace, *args]
        return subprocess.run(argv, input=input, capture_output=True, timeout=30, check=False)

    def run(
        self, name: str, *args: str, flags: tuple[str, ...] = ("--rm",), input: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        runtime = ("--env", "PATH=/bin", "--runtime", "io.containerd.orlop.v2", "--rootfs")
        return self.ctr("run", *flags, *runtime, str(self._rootfs), name, *args, input=input)


@pytest.fixture
def containerd(folder: Path, rootfs: Path) -> Iterator[Containerd]:
    private = folder / "rootfs"
    shutil.copytree(rootfs, private, symlinks=True)
    daemon = Containerd(folder, private)
    daemon.start()
    yield daemon
    daemon.kill()
    unmount_all(folder)
    remove_namespace(daemon.namespace)


def shims(folder: Path) -> list[int]:
    """Shim processes that serve containers of this folder's containerd."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes().split(b"\0", 2)[-1]:
                found.append(int(process.name))
        except (OSError, IndexError):
            continue
    return [pid for pid in found if process_exists(pid) and is_shim(pid)]


def is_shim(pid: int) -> bool:
    return name_of(pid) == "orlop-shim"


def test_run(containerd: Containerd, folder: Path) -> None:
    done = containerd.run("one", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    done = containerd.run(
        "two", "sh", input=b"echo from stdin; exit 3"
    )  # no line end: needs CloseIO
    assert (done.stdout, done.returncode) == (b"from stdin\n", 3)
    done = containerd.run("three", "nope")
    assert done.returncode == 1
    assert done.stderr.count(b'exec: "nope": executable file not found in $PATH') == 1
    wait_until(lambda: not shims(folder))
    assert not list(
        (folder / "state/io.containerd.runtime.v2.task" / containerd.namespace).iterdir()
    )


def test_the_life_of_a_detached_container(containerd: Containerd, folder: Path) -> None:
    def task(*args: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        done = containerd.ctr("tasks", *args, input=input)
        assert done.returncode == 0, done.stderr
        return done

    assert containerd.run("one", "sleep", "600", flags=("-d",)).returncode == 0
    assert b"RUNNING" in task("ls").stdout
    assert len(shims(folder)) == 1
    assert task("exec", "--exec-id", "e1", "one", "echo", "hello").stdout == b"hello\n"
    assert task("exec", "--exec-id", "e2", "one", "cat", input=b"typed").stdout == b"typed"
    task("pause", "one")
    assert b"PAUSED" in task("ls").stdout
    task("resume", "one")
    assert b"memory" in task("metrics", "one").stdout
    assert b"PID" in task("ps", "one").stdout
    containerd.kill()
    time.sleep(0.3)
    containerd.start()
    assert b"RUNNING" in task("ls").stdout  # the next daemon finds the shim again
    assert task("exec", "--exec-id", "e3", "one", "echo", "again").stdout == b"again\n"
    task("kill", "-s", "KILL", "one")
    wait_until(lambda: b"STOPPED" in containerd.ctr("tasks", "ls").stdout)
    done = containerd.ctr("tasks", "rm", "one")
    assert b"137" in done.stdout + done.stderr or done.returncode == 137
    containerd.ctr("containers", "rm", "one")
    wait_until(lambda: not shims(folder))


def test_a_dead_shim_is_cleaned_up(containerd: Containerd, folder: Path) -> None:
    assert containerd.run("one", "sleep", "600", flags=("-d",)).returncode == 0
    pid = int(containerd.ctr("tasks", "ls").stdout.split()[-2])
    (shim,) = shims(folder)
    kill(shim, 9)
    wait_until(lambda: not process_exists(pid))
    wait_until(lambda: b"RUNNING" not in containerd.ctr("tasks", "ls").stdout)
    containerd.ctr("tasks", "rm", "one")
    assert containerd.ctr("containers", "rm", "one").returncode == 0


def test_describing_itself() -> None:
    binary = str(BIN / "containerd-shim-orlop-v2")
    assert b"Version:" in subprocess.run([binary, "-v"], capture_output=True, check=True).stdout
    done = subprocess.run([binary, "-info"], input=b"", capture_output=True, check=True)
    info = RuntimeInfo.FromString(done.stdout)
    assert info.name == "io.containerd.orlop.v2"
    assert b'"ociVersionMin"' in info.features.value
    bad = subprocess.run([binary, "start"], capture_output=True, check=False)
    assert bad.returncode != 0
