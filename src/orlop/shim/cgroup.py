"""A container's cgroups: where they are, which processes they hold, when memory ran out."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orlop.shim.loop import Loop

ROOT = Path("/sys/fs/cgroup")
# In the order of preference for questions that any controller can answer.
PROCESS_CONTROLLERS = ("pids", "memory", "cpu", "freezer", "devices", "systemd")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of one container: `unified` on cgroup v2, one a controller on v1."""

    unified: Path | None = None
    controllers: dict[str, Path] = field(default_factory=dict)

    def folder(self, controller: str) -> Path | None:
        """The folder of a controller, if the container has one that exists."""
        folder = self.unified or self.controllers.get(controller)
        return folder if folder is not None and folder.is_dir() else None

    def exists(self) -> bool:
        return any(self.folder(controller) for controller in PROCESS_CONTROLLERS)

    def pids(self) -> list[int]:
        """Every process in the container, those of nested cgroups too, in ascending order."""
        found: set[int] = set()
        for controller in PROCESS_CONTROLLERS:
            top = self.folder(controller)
            if top is not None:
                for folder, _, _ in os.walk(top):
                    found.update(map(int, read(Path(folder, "cgroup.procs")).split()))
                break
        return sorted(found)


def of_process(pid: int, root: Path = ROOT, proc: Path = Path("/proc")) -> Cgroup:
    """The cgroups of a process, from its /proc/PID/cgroup (cgroups(7)); empty if it is gone."""
    memberships = list(_memberships(read(proc / str(pid) / "cgroup")))
    if (root / "cgroup.controllers").exists():
        paths = [path for names, path in memberships if not names]
        return Cgroup(unified=root / paths[0]) if paths else Cgroup()
    return Cgroup(
        controllers={name: root / name / path for names, path in memberships for name in names}
    )


def _memberships(text: str) -> Iterator[tuple[list[str], str]]:
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        clean = names.removeprefix("name=")
        yield (clean.split(",") if clean else []), path.lstrip("/")


def join(path: str, pid: int) -> None:
    """Move a process into the cgroup at `path`, made if need be; raises OSError."""
    if (ROOT / "cgroup.controllers").exists():
        folders = [ROOT / path.lstrip("/")]
    else:
        folders = [
            top / path.lstrip("/")
            for top in ROOT.iterdir()
            if top.name != "unified" and not top.is_symlink() and top.is_dir()
        ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(str(pid))


def read(path: Path) -> str:
    """The text of a small kernel file, "" if it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""


async def watch_oom(loop: Loop, cgroup: Cgroup, report: Callable[[], None]) -> None:
    """Call `report` at every out-of-memory kill until the cgroup is removed."""
    if cgroup.unified is not None:
        await _watch_oom_unified(loop, cgroup.unified / "memory.events", report)
    elif (memory := cgroup.folder("memory")) is not None:
        await _watch_oom_v1(loop, memory, report)


async def _watch_oom_v1(loop: Loop, folder: Path, report: Callable[[], None]) -> None:
    """An eventfd registered in cgroup.event_control (kernel: admin-guide/cgroup-v1/memory)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (folder / "cgroup.event_control").write_text(f"{event} {control}")
        finally:
            os.close(control)
        while await loop.read(event, 8) and folder.exists():
            report()  # the removal of the cgroup is an event too
    except FileNotFoundError:
        pass
    finally:
        os.close(event)


async def _watch_oom_unified(loop: Loop, path: Path, report: Callable[[], None]) -> None:
    """memory.events is "modified" (POLLPRI) when a counter changes (admin-guide/cgroup-v2)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        kills = _oom_kills(fd)
        while True:
            await loop.event(fd, select.EPOLLPRI)
            now = _oom_kills(fd)
            if now > kills:
                report()
            kills = now
    except OSError:
        pass  # the cgroup is gone
    finally:
        os.close(fd)


def _oom_kills(fd: int) -> int:
    for line in os.pread(fd, 4096, 0).decode().splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    return 0
