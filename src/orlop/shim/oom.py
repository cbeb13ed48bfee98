"""Tells when a container's cgroup has run out of memory."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

from orlop.shim.cgroup import Cgroup
from orlop.shim.files import write
from orlop.shim.loop import Loop, Task
from orlop.shim.rest import Luggage


class OomWatch:
    """Calls `report` at every out-of-memory kill, until the cgroup is removed."""

    def __init__(
        self, loop: Loop, report: Callable[[], None], fd: int, folder: str = "", kills: int = 0
    ) -> None:
        """`fd` tells of kills: on cgroup v1 an eventfd for `folder`, on v2 memory.events."""
        self._loop = loop
        self._report = report
        self._fd = fd
        self._folder = folder
        self._kills = kills
        self._task: Task[None] = loop.spawn(self._watch_v1() if folder else self._watch_v2())

    @classmethod
    def start(cls, loop: Loop, cgroup: Cgroup, report: Callable[[], None]) -> OomWatch | None:
        """None where nothing counts the memory. Raises OSError when it cannot be watched."""
        try:
            if cgroup.unified is not None:
                path = f"{cgroup.unified}/memory.events"
                return cls(loop, report, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if (memory := cgroup.folder("memory")) is not None:
                return cls(loop, report, _register(memory), memory)
        except FileNotFoundError:
            pass  # the container has ended already
        return None

    def freeze(self, luggage: Luggage) -> list[Any] | None:
        """What `thaw` makes it from again, None once there is nothing to watch."""
        return None if self._task.done else [luggage.put(self._fd), self._folder, self._kills]

    @classmethod
    def thaw(
        cls, loop: Loop, luggage: Luggage, state: list[Any], report: Callable[[], None]
    ) -> OomWatch:
        fd, folder, kills = state
        return cls(loop, report, luggage.claim(fd), folder, kills)

    def cancel(self) -> None:
        self._task.cancel()

    async def _watch_v1(self) -> None:
        try:
            while await self._loop.read(self._fd, 8) and os.path.isdir(self._folder):
                self._report()  # the removal of the cgroup is an event too
        finally:
            os.close(self._fd)

    async def _watch_v2(self) -> None:
        """memory.events is "modified" (POLLPRI) when a counter changes (admin-guide/cgroup-v2)."""
        try:
            while True:
                before, self._kills = self._kills, _kills(self._fd)
                if self._kills > before:
                    self._report()
                await self._loop.event(self._fd, select.EPOLLPRI)
        except OSError:
            pass  # the cgroup is gone
        finally:
            os.close(self._fd)


def _register(folder: str) -> int:
    """An eventfd registered in cgroup.event_control (kernel: admin-guide/cgroup-v1/memory)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            write(f"{folder}/cgroup.event_control", b"%d %d" % (event, control))
        finally:
            os.close(control)
    except BaseException:
        os.close(event)
        raise
    return event


def _kills(fd: int) -> int:
    for line in os.pread(fd, 4096, 0).decode().splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    return 0
