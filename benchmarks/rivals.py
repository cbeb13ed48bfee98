"""The two daemons that are compared, each private, each on a tmpfs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.lean import LeanClient
from benchmarks.meter import Meter

BASE = Path("/dev/shm")
_CGROUPS = Path("/sys/fs/cgroup")
# Runtime state and cgroups are named by namespace, and this machine may have other daemons.
NAMESPACE = f"bench-{os.getpid()}"
_VERSION = "/containerd.services.version.v1.Version/Version"
_PATIENCE = 20.0


class Rival:
    """A running daemon: how to reach it, what it uses, and how many seconds it took to serve."""

    def __init__(
        self, name: str, folder: Path, process: subprocess.Popen[bytes], meter: Meter
    ) -> None:
        self.name = name
        self.folder = folder
        self.process = process
        self.meter = meter
        self.start_time = 0.0
        self.address = str(folder / "state" / "d.sock")

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            with LeanClient(self.address, NAMESPACE) as client:
                return bool(client.call(_VERSION))
        except OSError:
            return False

    def ctr(self, *args: str) -> list[str]:
        """The command line of Debian's ctr against this daemon."""
        where = () if args[0] == "-n" else ("-n", NAMESPACE)
        return ["ctr", "--address", self.address, *where, *args]

    def clear(self) -> None:
        """Remove what an interrupted comparison left running."""
        for line in self.run_ctr("tasks", "ls", "-q").split():
            subprocess.run(self.ctr("tasks", "rm", "-f", line), capture_output=True, check=False)

    def run_ctr(self, *args: str) -> str:
        return run(self.ctr(*args))


def orlop(rival: Rival, *args: str) -> list[str]:
    """The command line of our own command against a daemon."""
    command = str(Path(sys.executable).parent / "orlop")
    return [command, "-a", rival.address, "-n", NAMESPACE, *args]


def run(command: Sequence[str]) -> str:
    """Run a command to its end; its output. Raises with its error output when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextmanager
def folder(name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=f"orlop-bench-{name}-", dir=BASE))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def await_(check: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} does not come up")
        time.sleep(0.005)


@contextmanager
def _daemon(name: str, path: Path, command: list[str]) -> Iterator[Rival]:
    meter = Meter(f"orlop-{path.name}")
    start = time.perf_counter()
    try:
        with (path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        meter.take_in(process.pid)
        rival = Rival(name, path, process, meter)
        try:
            await_(rival.answers, name)
            rival.start_time = time.perf_counter() - start
            try:
                yield rival
            finally:
                rival.clear()
        finally:
            process.terminate()
            process.wait()
    finally:
        meter.close()
        _remove_cgroups()


def _remove_cgroups() -> None:
    """Those that runtimes make for a namespace and leave; one that is in use stays."""
    for group in (*_CGROUPS.glob(f"*/{NAMESPACE}"), *_CGROUPS.glob(NAMESPACE)):
        with suppress(OSError):
            group.rmdir()


@contextmanager
def containerd(more: str = "") -> Iterator[Rival]:
    """Debian's containerd, without the CRI plugin (which would only cost it memory).

    `more` is added to the configuration.
    """
    with folder("containerd") as path:
        config = path / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{path}/root"\nstate = "{path}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{path}/state/d.sock"\n{more}'
        )
        with _daemon("containerd", path, ["containerd", "--config", str(config)]) as rival:
            yield rival


@contextmanager
def orlopd(more: str = "") -> Iterator[Rival]:
    with folder("orlopd") as path:
        (path / "config.toml").write_text(more)
        command = [
            str(Path(sys.executable).parent / "orlopd"),
            *("--root", f"{path}/root"),
            *("--state", f"{path}/state"),
            *("--address", f"{path}/state/d.sock"),
            *("--network", "none"),
            *("--config", f"{path}/config.toml"),
        ]
        with _daemon("orlopd", path, command) as rival:
            yield rival


@contextmanager
def registry() -> Iterator[str]:
    """Debian's docker-registry on loopback; its host:port."""
    with folder("registry") as path, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        (path / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {path}/data}}}}\n"
            f'http: {{addr: "{host}"}}\n'
        )
        with (path / "log").open("wb") as log:
            process = subprocess.Popen(
                ["docker-registry", "serve", str(path / "config.yml")], stdout=log, stderr=log
            )
        try:
            await_(lambda: _answers(host), "docker-registry")
            yield host
        finally:
            process.terminate()
            process.wait()


def _answers(host: str) -> bool:
    name, _, port = host.partition(":")
    with socket.socket() as client:
        return client.connect_ex((name, int(port))) == 0
