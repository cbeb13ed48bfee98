"""What /proc says of a container's processes: network, open files, since when."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orlop.metrics.family import Family, Sheet, pairs
from orlop.shim.cgroup import PROCESS_CONTROLLERS, Cgroup
from orlop.shim.files import read_bytes, read_text

INTERFACES_MAX = 64
PROCESSES_MAX = 1024
"""Of a container with more processes, open files are not counted."""

# Links to a folder without others in it: its name, and its own ".".
_ALONE = 2
_TICKS = os.sysconf("SC_CLK_TCK")
# The columns of /proc/PID/net/dev.
_NETWORK = {
    0: ("receive_bytes", "Bytes received"),
    1: ("receive_packets", "Packets received"),
    2: ("receive_errors", "Packets received with errors"),
    3: ("receive_packets_dropped", "Packets received and dropped"),
    8: ("transmit_bytes", "Bytes sent"),
    9: ("transmit_packets", "Packets sent"),
    10: ("transmit_errors", "Packets that could not be sent for errors"),
    11: ("transmit_packets_dropped", "Packets to be sent and dropped"),
}
_NETWORK_FAMILIES = {
    column: Family(f"container_network_{name}_total", f"{text}, by interface", ("interface",))
    for column, (name, text) in _NETWORK.items()
}
_START = Family(
    "container_start_time_seconds", "When the container's first process started, since 1970"
)
_PROCESSES = Family("container_processes", "Processes")
_FILES = Family("container_file_descriptors", "Open files of all processes")

FAMILIES = (_START, _PROCESSES, _FILES, *_NETWORK_FAMILIES.values())


class Processes:
    """Looks at the processes of containers, one container after another."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._booted = _boot_time(proc)
        self._own_network = _network_of(f"{proc}/self")

    def write(self, sheet: Sheet, labels: str, pid: int, cgroup: Cgroup) -> int:
        """Add the samples of a container by its first process; how many were left out.

        Raises OSError when that has ended. Containers in the host's network have no samples of it:
        it is not theirs.
        """
        base = f"{self._proc}/{pid}"
        ticks = int(read_text(f"{base}/stat").rpartition(")")[2].split()[19])
        sheet.add(_START.name, labels, round(self._booted + ticks / _TICKS, 2))
        pids = list(_pids(cgroup))
        sheet.add(_PROCESSES.name, labels, len(pids))
        if len(pids) <= PROCESSES_MAX:
            sheet.add(_FILES.name, labels, sum(map(self._open_files, pids)))
        if _network_of(base) == self._own_network:
            return 0
        # An interface may be named by any bytes.
        text = read_bytes(f"{base}/net/dev").decode(errors="backslashreplace")
        return _write_network(sheet, labels, text)

    def _open_files(self, pid: str) -> int:
        folder = f"{self._proc}/{pid}/fd"
        try:
            # Their number, since Linux 6.2; 0 before.
            return os.stat(folder).st_size or len(os.listdir(folder))
        except OSError:
            return 0


def _write_network(sheet: Sheet, labels: str, text: str) -> int:
    dropped = 0
    # Not `splitlines`, to which more is an end: the kernel lets names have it.
    for number, line in enumerate(text.rstrip("\n").split("\n")[2:]):
        interface, _, rest = line.rpartition(":")
        interface = interface.strip()
        if interface == "lo":
            continue
        if number >= INTERFACES_MAX:
            dropped += len(_NETWORK_FAMILIES)
            continue
        values = rest.split()
        own = f"{labels},{pairs([('interface', interface)])}"
        for column, family in _NETWORK_FAMILIES.items():
            sheet.add(family.name, own, int(values[column]))
    return dropped


def _pids(cgroup: Cgroup) -> Iterator[str]:
    """Every process of a container; those of nested cgroups too."""
    tops = [cgroup.unified] if cgroup.unified else map(cgroup.controllers.get, PROCESS_CONTROLLERS)
    for top in tops:
        if top is None:
            continue
        try:
            yield from read_text(f"{top}/cgroup.procs").split()
            nested = os.stat(top).st_nlink > _ALONE
        except OSError:
            continue
        if nested:
            for folder, _, _ in os.walk(top):
                if folder != top:
                    yield from _procs(folder)
        return


def _procs(folder: str) -> list[str]:
    try:
        return read_text(f"{folder}/cgroup.procs").split()
    except OSError:
        return []


def _network_of(process: str) -> str:
    """The name of a network namespace, which the kernel tells sooner than its inode."""
    return os.readlink(f"{process}/ns/net")


def _boot_time(proc: str) -> int:
    for line in read_text(f"{proc}/stat").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0
