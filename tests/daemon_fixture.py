"""A private orlopd: its own folders, socket and namespace, and a check that nothing stays."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from orlop.client import Connection
from orlop.errors import Unavailable
from orlop.sys.mount import unmount_all
from tests.patience import patient, wait_for

START_LIMIT = 40.0
STOP_LIMIT = patient(20)
_MARK = "ORLOPD_UNDER_TEST"
_RUNC_ROOT = Path("/run/containerd/runc")
_CGROUPS = Path("/sys/fs/cgroup")


class Orlopd:
    """An orlopd in folders of its own.

    `namespace` is its own as well: runtime state and cgroups are named by namespace and container,
    and other daemons may run on this machine.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="orlopd-", dir=_fast_folder()))
        self.root = self.folder / "root"
        self.state = self.folder / "state"
        self.address = str(self.state / "orlop.sock")
        self.namespace = f"test-{self.folder.name.removeprefix('orlopd-').replace('_', 'x')}"
        self.log = self.folder / "log"
        self.options = list(options)
        self.network = "none"  # what the machine has is not touched
        self.inside: Sequence[str] = ()
        """What the command line begins with, to run it in a namespace of the test's."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # Life

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = self.spawn([*self.command(), *self.options], self.log)
        self.wait_for(self._serves, START_LIMIT)

    def command(self) -> list[str]:
        """Its command line, without `options`."""
        where = ("--root", str(self.root), "--state", str(self.state))
        return [_program("orlopd"), *where, "--network", self.network]

    def spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process that is found again, with all that it starts, if it is left."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*self.inside, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, _MARK: str(self.folder)},
            )

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"orlopd ended at start:\n{self.log.read_text()}")
        return f"pid={self.pid} " in self.log.read_text()

    def stop(self) -> float:
        """Stop it with SIGTERM; the seconds that it took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        code = self._process.wait(STOP_LIMIT)
        assert code == 0, f"exit code {code}\n{self.log.read_text()}"
        self._process = None
        return time.monotonic() - began

    def kill9(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Start it again, stopping it first if it runs."""
        if self._process is not None:
            self.stop()
        self.start()

    # Use

    def connect(self, namespace: str = "", lease: str = "") -> Connection:
        """A client of the Python library; the caller closes it."""
        return Connection(self.address, namespace or self.namespace, lease)

    def ctr_command(self, *arguments: str, namespace: str = "") -> list[str]:
        """The command line of `ctr`, to be started otherwise."""
        where = namespace or self.namespace
        return ["ctr", "--address", self.address, "--namespace", where, *arguments]

    def ctr(
        self,
        *arguments: str,
        check: bool = True,
        stdin: IO[bytes] | None = None,
        input: str | None = None,
        timeout: float = 60,
        namespace: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run `ctr`; with `check`, its failure fails the test."""
        text = "" if stdin is None and input is None else input
        done = subprocess.run(
            self.ctr_command(*arguments, namespace=namespace),
            stdin=stdin,
            input=text,
            capture_output=True,
            text=True,
            timeout=patient(timeout),
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.log.read_text()}"
        return done

    def ctr_bytes(self, *arguments: str) -> bytes:
        """What `ctr` prints, as bytes."""
        return subprocess.run(
            self.ctr_command(*arguments), capture_output=True, timeout=patient(60), check=True
        ).stdout

    def orlop_command(self, *arguments: str) -> list[str]:
        """The command line of `orlop`, to be started otherwise."""
        where = ("--address", self.address, "--namespace", self.namespace)
        return [_program("orlop"), *where, *arguments]

    def orlop(
        self, *arguments: str, check: bool = True, input: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run `orlop`; with `check`, its failure fails the test."""
        done = subprocess.run(
            self.orlop_command(*arguments),
            input=input,
            capture_output=True,
            text=True,
            timeout=patient(timeout),
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.log.read_text()}"
        return done

    wait_for = staticmethod(wait_for)

    # The end

    def close(self) -> None:
        """Stop it and fail if anything of it is left; whatever it is, it is removed."""
        if self._process is None:
            self.start()
        self.stop()
        with suppress(AssertionError):
            # A shim takes a moment to say goodbye after its container is deleted.
            self.wait_for(lambda: not self.leftovers(), 15)
        left = self.leftovers()
        log = self.log.read_text()
        self._remove()
        assert not left, f"orlopd leaves {left}\n{log}"
        assert "Traceback" not in log, log

    def discard(self) -> None:
        """Remove everything after a failure, without a word."""
        if self._process is not None:
            self.kill9()
        self._remove()

    def leftovers(self) -> dict[str, list[str]]:
        """What is there of this daemon, by kind; empty after a clean end."""
        found = {
            "processes": [f"{pid} {name}" for pid, name in self.processes()],
            "contained": [str(pid) for pid in _contained(self.namespace)],
            "mounts": _lines_with(Path("/proc/self/mountinfo"), f"{self.folder}/"),
            "cgroups": [str(path) for path in _CGROUPS.glob(f"*/{self.namespace}/*/")]
            + [str(path) for path in _CGROUPS.glob(f"{self.namespace}/*/")],
            "runtime": _names(_RUNC_ROOT / self.namespace),
            "sockets": [str(path) for path in _files(self.state) if path.is_socket()],
            "bundles": _bundles(self.state) + _bundles(self.root),
        }
        return {kind: items for kind, items in found.items() if items}

    def processes(self) -> Iterator[tuple[int, str]]:
        """The pids and names of all processes that this daemon has started."""
        mark = f"{_MARK}={self.folder}\0".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    yield int(entry.name), (entry / "comm").read_text().strip()

    def _remove(self) -> None:
        for container in _names(_RUNC_ROOT / self.namespace):
            subprocess.run(
                ["runc", "--root", str(_RUNC_ROOT / self.namespace), "delete", "-f", container],
                check=False,
            )
        for pid, _ in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(AssertionError):
            self.wait_for(lambda: not _kill_contained(self.namespace), 5)
        unmount_all(self.folder)
        remove_namespace(self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_namespace(namespace: str) -> None:
    """Remove what runtimes keep for a namespace whose containers are gone."""
    for group in _groups(namespace):
        for path, _, _ in os.walk(group, topdown=False):  # others may remove some meanwhile
            with suppress(OSError):
                Path(path).rmdir()
    shutil.rmtree(_RUNC_ROOT / namespace, ignore_errors=True)


def _groups(namespace: str) -> list[Path]:
    return [*_CGROUPS.glob(f"*/{namespace}"), _CGROUPS / namespace]


def _contained(namespace: str) -> set[int]:
    """The pids in a namespace's containers, whoever runs them: those of dockerd bear no mark."""
    found: set[int] = set()
    for path in (each for group in _groups(namespace) for each in _files(group)):
        if path.name == "cgroup.procs":
            with suppress(OSError):
                found.update(map(int, path.read_text().split()))
    return found - {0}  # who is in no pid namespace of ours


def _kill_contained(namespace: str) -> set[int]:
    """Kill all that is in a namespace's containers, paused or not; what was still there."""
    found = _contained(namespace)
    for path in (each for group in _groups(namespace) for each in _files(group)):
        if path.name == "freezer.state":
            with suppress(OSError):
                path.write_text("THAWED")
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


Daemon = TypeVar("Daemon", bound=Orlopd)


def serving(options: Sequence[str] = ()) -> Iterator[Orlopd]:
    """A running orlopd for one test, checked at its end."""
    yield from serving_with(Orlopd(options))


def serving_with(daemon: Daemon) -> Iterator[Daemon]:
    """Start a prepared orlopd for one test; it is checked at its end."""
    try:
        daemon.start()
        yield daemon
        daemon.close()
    finally:
        daemon.discard()


BUSYBOX = "docker.io/library/busybox:latest"


def connects(address: str) -> bool:
    """Whether an orlopd serves at an address."""
    try:
        Connection(address).close()
    except Unavailable:
        return False
    return True


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _fast_folder() -> str | None:
    """A tmpfs with room, or the usual place."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free > 512 << 20:
        return str(shm)
    return None


def _files(folder: Path) -> Iterator[Path]:
    """All below a folder from which others are removing things."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _lines_with(path: Path, text: str) -> list[str]:
    return [line for line in path.read_text().splitlines() if text in line]


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _bundles(folder: Path) -> list[str]:
    found = folder.glob("io.containerd.runtime.v2.task/*/*")
    return [re.sub(r"^.*\.task/", "", str(path)) for path in found]
