"""What runc's `start`, `kill` and `delete` do, done without starting runc, which takes longer.

They hold for containers whose state is libcontainer's, and whose end is nothing but the removal of
cgroups and of that state. For all others (another runtime, hooks, systemd, resctrl, devices that
go back to the host) each answers False, and the runtime is asked.

libcontainer keeps a container in `ROOT/ID/state.json`. Until its start there is `exec.fifo` too,
into which its init writes one byte and then executes the program: whoever reads it starts it.
"""

from __future__ import annotations

import json
import os
import select
import stat
from typing import Any

from orlop.shim.children import Exit
from orlop.shim.files import read_or_empty, remove
from orlop.shim.loop import Loop, Promise

_CGROUPS = "/sys/fs/cgroup/"
_INIT = "runc:[2:INIT]\n"
_EXECUTED_TRIES, _EXECUTED_PAUSE = 2000, 0.001
_KNOWN_FILES = {"state.json", "exec.fifo"}
_MARKS = ("init_process_pid", "init_process_start", "cgroup_paths", "namespace_paths")


def is_libcontainer(folder: str, pid: int) -> bool:
    """Whether `folder` is libcontainer's state of the container whose init is `pid`."""
    return _state(folder, pid) is not None


async def start(loop: Loop, folder: str, ended: Promise[Exit]) -> bool:
    """Let the init of a created container execute its program; `ended` is its exit."""
    path = f"{folder}/exec.fifo"
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode) or not os.path.exists(f"{folder}/state.json"):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        written = loop.watch(fd, select.EPOLLIN)
        ended.subscribe(written.resolve_from)
        await written
        ended.unsubscribe(written.resolve_from)
        loop.unwatch(fd, written)
        if not os.read(fd, 1):
            return False  # it is dead, and the runtime knows the words for that
    except OSError:
        return False
    finally:
        os.close(fd)
    remove(path)
    return True


async def executed(loop: Loop, pid: int) -> None:
    """Wait until the init that was started has executed its program, a moment after the start.

    A signal would end runc's init, a Go program, where the container's handles or ignores it.
    runc's own commands do not wait either, but take longer than that moment.
    """
    for _ in range(_EXECUTED_TRIES):
        if read_or_empty(f"/proc/{pid}/comm") != _INIT:
            break
        await loop.sleep(_EXECUTED_PAUSE)


def delete(folder: str, pid: int) -> bool:
    """Remove the cgroups and the state of a container whose init, `pid`, has been reaped."""
    state = _state(folder, pid)
    if state is None or not _is_plain(state) or not _KNOWN_FILES.issuperset(os.listdir(folder)):
        return False
    try:
        for path in state["cgroup_paths"].values():
            _remove_cgroup(path)
        for name in _KNOWN_FILES:
            remove(f"{folder}/{name}")
        os.rmdir(folder)
    except OSError:
        return False
    return True


def _state(folder: str, pid: int) -> dict[str, Any] | None:
    try:
        state = json.loads(read_or_empty(f"{folder}/state.json"))
    except ValueError:
        return None
    if not isinstance(state, dict) or any(mark not in state for mark in _MARKS):
        return None
    return state if state["init_process_pid"] == pid else None


def _is_plain(state: dict[str, Any]) -> bool:
    """Whether nothing but cgroups and the state folder has to be removed."""
    config = state.get("config") or {}
    hooks = config.get("Hooks") or config.get("hooks") or {}
    cgroups = config.get("cgroups") or {}
    return not (
        hooks.get("poststop")
        or state.get("intel_rdt_path")
        or config.get("net_devices")
        or state.get("rootless")
        or cgroups.get("Systemd", cgroups.get("systemd"))
        or not _has_own_pids(config)
        or any(not path.startswith(_CGROUPS) for path in state["cgroup_paths"].values())
    )


def _has_own_pids(config: dict[str, Any]) -> bool:
    """Whether all its processes have ended with its init."""
    namespaces = config.get("namespaces") or []
    return any(each.get("type") == "NEWPID" and not each.get("path") for each in namespaces)


def _remove_cgroup(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
