"""Containers in the namespaces of others, looked up at each start: a process has another pid then.

The label `orlop/namespaces` of a container is a JSON object such as `{"pid": ID, "ipc": ID}`: whose
it shares. Who shares IPC has the other one's /dev/shm as well, for POSIX shared memory is in there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.fork.worker import Report, Spawner, Worker
from orlop.runtime.bundle import MEMORY
from orlop.runtime.model import ContainerRecord, PidOf
from orlop.sys.overlay import clone_tree, move_mount
from orlop.sys.process import CLONE_NEWNS, is_alive, mark, setns

LABEL = "orlop/namespaces"
_KINDS = ("pid", "ipc")
_TARGET = "/dev/shm"
_JOB = "orlop.runtime.sharing:mount_of"


class Shared:
    """What one task shares: `spec` is what it is to be made with.

    Raises InvalidArgument for a label that makes no sense, FailedPrecondition where the other one
    does not run.
    """

    def __init__(
        self, namespace: str, container: ContainerRecord, spec: bytes, bundle: Path, pid_of: PidOf
    ) -> None:
        config: dict[str, Any] = json.loads(spec)
        self._memory_of = 0
        self._marks: dict[str, str] = {}
        for kind, other in _wanted(container.id, container.labels).items():
            pid = pid_of(namespace, other)
            marked = mark(pid) if pid else ""
            if not marked:
                raise FailedPrecondition(
                    f'container "{other}", whose {kind} namespace is shared, does not run'
                )
            self._marks[other] = marked
            _join(config, kind, f"/proc/{pid}/ns/{kind}")
            if kind == "ipc":
                self._memory_of, self._other = pid, other
                _replace_memory(config, str(bundle / MEMORY))
        self.spec = json.dumps(config).encode()

    def check(self) -> None:
        """Raise FailedPrecondition unless all whose namespaces were joined have lived until now.

        They are joined by the numbers of their processes, which others have afterwards.
        """
        for other, marked in self._marks.items():
            if not is_alive(marked):
                raise FailedPrecondition(
                    f'container "{other}", whose namespaces were to be shared, has just ended'
                )

    def prepare(self, bundle: Path, forks: Spawner) -> None:
        """Put what the spec names into the bundle."""
        if not self._memory_of:
            return
        target = bundle / MEMORY
        target.mkdir()
        args = {"pid": self._memory_of, "target": str(target)}
        with Worker(forks, _JOB, args, name="orlop-shm") as worker:
            if not worker.result():
                raise FailedPrecondition(
                    f'container "{self._other}", whose ipc namespace is shared, has no {_TARGET}'
                )


def _wanted(container: str, labels: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(labels[LABEL])
        good = all(kind in _KINDS and isinstance(found[kind], str) for kind in found)
    except (ValueError, TypeError):
        good = False
    if not good or not isinstance(found, dict):
        raise InvalidArgument(f'container "{container}": label {LABEL} is no object of pid and ipc')
    return found


def _join(config: dict[str, Any], kind: str, path: str) -> None:
    namespaces = config.setdefault("linux", {}).setdefault("namespaces", [])
    namespaces[:] = [each for each in namespaces if each["type"] != kind]
    namespaces.append({"type": kind, "path": path})


def _replace_memory(config: dict[str, Any], source: str) -> None:
    for each in config.get("mounts") or ():
        if each["destination"] == _TARGET and each.get("source") == "shm":
            each.update(type="bind", source=source, options=["rbind", "rprivate", "rw"])


def mount_of(args: dict[str, Any], fds: list[int], report: Report) -> bool:
    """The job (see `orlop.fork.worker`): mount the memory of the container of `pid` at `target`.

    Only who is in the container's mount namespace may take a mount out of it. False if it has none.
    """
    del fds, report
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/proc/{args['pid']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(there, CLONE_NEWNS)
    try:
        tree = clone_tree(_TARGET, f"{_TARGET} of process {args['pid']}")
    except FileNotFoundError:
        return False
    finally:
        setns(home, CLONE_NEWNS)
    move_mount(tree, Path(args["target"]))
    return True
