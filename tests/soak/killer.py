"""Kills the daemon and what belongs to it, one thing a round."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.daemon_fixture import Orlopd
from tests.soak.ledger import Ledger
from tests.soak.sailor import LOGGER

_NAME = re.compile(rb"soak-\d+-\d+")
_MARK = "ORLOPD_UNDER_TEST"


class Killer(threading.Thread):
    """Kills so many things, one every `pause` seconds; starts the daemon again each time."""

    def __init__(
        self, daemon: Orlopd, ledger: Ledger, logs: Path, seed: int, rounds: int, pause: float
    ) -> None:
        super().__init__(name="killer")
        self._daemon = daemon
        self._ledger = ledger
        self._logs = logs
        self._random = random.Random(seed)
        self._rounds = rounds
        self._pause = pause
        self._mark = f"{_MARK}={daemon.folder}\0".encode()

    def run(self) -> None:
        try:
            for _ in range(self._rounds):
                threading.Event().wait(self._pause * self._random.uniform(0.5, 1.5))
                victims = self._random.sample(
                    [
                        self._orlopd,
                        self._fork_server,
                        self._shim,
                        self._init,
                        self._runc,
                        self._logger,
                    ],
                    6,
                )
                any(victim() for victim in victims)  # the first that is there
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self._ledger.fault(f"killer: {type(error).__name__}: {error}")

    def _orlopd(self) -> bool:
        self._daemon.kill9()
        self._daemon.start()
        self._ledger.count("orlopd")
        return True

    def _fork_server(self) -> bool:
        servers = [pid for pid in self._ours() if b"orlop.fork.server" in _command(pid)]
        alive = [pid for pid in servers if _parent(pid) == self._daemon.pid]
        return any(self._end(pid, "fork server") for pid in alive)

    def _shim(self) -> bool:
        found = [(pid, name) for pid, name in self._containers() if name]
        if found:
            pid, name = self._random.choice(found)
            shim = _parent(pid)
            if shim in set(self._ours()):
                self._ledger.harm(name, "shim")
                return self._end(shim, "shim")
        return False

    def _init(self) -> bool:
        found = list(self._containers())
        if found:
            pid, name = self._random.choice(found)
            self._ledger.harm(name, "init")
            return self._end(pid, "init")
        return False

    def _runc(self) -> bool:
        for pid in self._ours():
            command = _command(pid)
            if command.startswith(b"runc\0") and (name := _NAME.search(command)):
                self._ledger.harm(name[0].decode(), command.decode().replace("\0", " "))
                return self._end(pid, "runc")
        return False

    def _logger(self) -> bool:
        """A logger's shell, or one of its two readers."""
        shells = loggers(self._logs)
        readers = [pid for shell in shells for pid in _children(shell)]
        if shells:
            pid = self._random.choice([*shells, *readers])
            name = _NAME.search(_environment(pid))
            if name is not None:
                self._ledger.harm(name[0].decode(), "logger")
                return self._end(pid, "logger")
        return False

    def _end(self, pid: int, what: str) -> bool:
        """Whether it was there."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._ledger.count(what)
        return True

    def _ours(self) -> Iterator[int]:
        """Processes of this daemon; its containers are none."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    if self._mark in (entry / "environ").read_bytes():
                        yield int(entry.name)

    def _containers(self) -> Iterator[tuple[int, str]]:
        """The first processes of the containers, by what the shims wrote into their bundles."""
        folder = self._daemon.state / "io.containerd.runtime.v2.task" / self._daemon.namespace
        for bundle in folder.glob("soak-*"):
            with suppress(OSError, ValueError):
                pid = int((bundle / "init.pid").read_text())
                if f"/{bundle.name}\n" in Path(f"/proc/{pid}/cgroup").read_text():
                    yield pid, bundle.name


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _environment(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def loggers(logs: Path) -> list[int]:
    """The shells of the loggers that write below a folder."""
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in found if f"{LOGGER}\0{logs}/".encode() in _command(pid)]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
