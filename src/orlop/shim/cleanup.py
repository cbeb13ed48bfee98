"""What is left to do for a container whose shim has died."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from orlop.rpc.convert import timestamp
from orlop.shim import cgroup
from orlop.shim.files import read_or_empty
from orlop.shim.runc import DEFAULT_BINARY, DEFAULT_ROOT, spawn
from orlop.sys.mount import unmount_all
from orlop.wire.task_v2_pb2 import DeleteResponse

_DELETE_TRIES = 3
_CGROUP_TRIES, _CGROUP_PAUSE = 200, 0.02
_RUNTIME_LIMIT = 10_000
"""Milliseconds for a runtime to remove a container."""


def cleanup(namespace: str, id: str, bundle: str) -> DeleteResponse:
    """End and remove the container that a dead shim has left, and unmount what is in its bundle.

    Needs no shim, and works for a container that was never created. The answer is what the shim
    would have said: killed, now. Raises OSError if something cannot be unmounted, or the runtime
    does not come to an end or does not let go of the container.
    """
    options = _options(bundle)
    binary = options.get("binary_name") or DEFAULT_BINARY
    root = f"{options.get('root') or DEFAULT_ROOT}/{namespace}"
    flags = ["--systemd-cgroup"] if options.get("systemd_cgroup") else []
    _end_stragglers(options.get("shim_pid", 0), bundle)
    _delete([binary, "--root", root, *flags, "delete", "--force", id], f"{root}/{id}")
    _remove_cgroups(bundle)
    unmount_all(Path(bundle))
    pid = read_or_empty(f"{bundle}/init.pid").strip()
    return DeleteResponse(
        pid=int(pid) if pid.isdigit() else 0,
        exit_status=128 + signal.SIGKILL,
        exited_at=timestamp(time.time_ns()),
    )


def _end_stragglers(shim: int, bundle: str) -> None:
    """Kill the runtime that a dead shim was running: it would go on making the container."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if _group(pid) == shim and _belongs_to(pid, bundle):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _group(pid: str) -> int:
    """The process group, which is that of the shim for all that it runs; -1 once it is gone."""
    fields = read_or_empty(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[2]) if len(fields) > 2 else -1


def _belongs_to(pid: str, bundle: str) -> bool:
    """Whether it works on this bundle: groups are numbers, which may be another's by now."""
    with suppress(OSError):
        if os.path.samefile(f"/proc/{pid}/cwd", bundle):  # which may be named by a link
            return True
    arguments = read_or_empty(f"/proc/{pid}/cmdline").split("\0")
    return any(each == bundle or each.startswith(f"{bundle}/") for each in arguments)


def _remove_cgroups(bundle: str) -> None:
    path = cgroup.path_in(bundle)
    for _ in range(_CGROUP_TRIES):
        if cgroup.remove_empty(path):
            return
        time.sleep(_CGROUP_PAUSE)


def _options(bundle: str) -> dict[str, Any]:
    """The runc options that the shim has written into the bundle at create."""
    try:
        options = json.loads(read_or_empty(f"{bundle}/options.json"))
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}


def _delete(argv: list[str], state: str) -> None:
    """Have the runtime forget a container; again if it is killed at that."""
    for _ in range(_DELETE_TRIES):
        _run(argv)
        if not os.path.isdir(state):
            return
    raise OSError(f'"{argv[0]} delete" leaves "{state}"')


def _run(argv: list[str]) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        _wait(spawn(argv, {0: null, 1: null, 2: null}), argv[0])
    except FileNotFoundError:
        pass  # without the runtime there is nothing that it could have left running
    finally:
        os.close(null)


def _wait(pid: int, binary: str) -> None:
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_RUNTIME_LIMIT):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f'"{binary} delete" does not come to an end')
    finally:
        os.close(fd)
    os.waitpid(pid, 0)
