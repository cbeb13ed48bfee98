"""What processes use: processor time by a control group, memory by proportional set size."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 5.0


class Meter:
    """A daemon and all that it starts: their processor time, also of what has ended, and memory.

    What a container's own processes use is not in it: those have control groups of their own.
    """

    def __init__(self, name: str) -> None:
        v1 = _CGROUPS / "cpuacct"
        self._usage = "cpuacct.usage" if v1.is_dir() else "cpu.stat"
        self._path = (v1 if v1.is_dir() else _CGROUPS) / name
        self._path.mkdir()

    def take_in(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        text = (self._path / self._usage).read_text()
        if self._usage == "cpuacct.usage":
            return int(text) / 1e9
        return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6

    def memory(self) -> float:
        """In MB, see `pss`."""
        return pss(map(int, (self._path / "cgroup.procs").read_text().split()))

    def close(self) -> None:
        """Remove the group, once its last process has gone."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._path.rmdir()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return


def parent(pid: int) -> int:
    return int(_field(f"/proc/{pid}/status", "PPid"))


def resident(pid: int, key: str = "VmRSS") -> float:
    """Of one process, in MB; `VmHWM` is the most that it ever was."""
    return int(_field(f"/proc/{pid}/status", key)) / 1024


def pss(pids: Iterable[int]) -> float:
    """What processes take together, in MB: shared pages count once."""
    return sum(int(_field(f"/proc/{pid}/smaps_rollup", "Pss")) for pid in pids) / 1024


def _field(path: str | os.PathLike[str], key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split()[1]
    raise RuntimeError(f"no {key} in {path}")
