"""A container's cgroups: where they are, which processes they hold, when memory ran out."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from orlop.shim.files import read_or_empty, write

_INHERITED = ("cpuset.cpus", "cpuset.mems")
ROOT = "/sys/fs/cgroup"
# In the order of preference for questions that any controller can answer.
PROCESS_CONTROLLERS = ("pids", "memory", "cpu", "freezer", "devices", "systemd")
# Hierarchy, controllers or the name of one without any, path.
_MEMBERSHIP = re.compile(r"^\d+:(?:name=)?([^:]*):/*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of one container: `unified` on cgroup v2, one a controller on v1."""

    unified: str | None = None
    controllers: dict[str, str] = field(default_factory=dict)

    def folder(self, controller: str) -> str | None:
        """The folder of a controller, if the container has one that exists."""
        folder = self.unified or self.controllers.get(controller)
        return folder if folder is not None and os.path.isdir(folder) else None

    def exists(self) -> bool:
        return any(self.folder(controller) for controller in PROCESS_CONTROLLERS)

    def pids(self) -> list[int]:
        """Every process in the container, those of nested cgroups too, in ascending order."""
        found: set[int] = set()
        for controller in PROCESS_CONTROLLERS:
            top = self.folder(controller)
            if top is not None:
                for folder, _, _ in os.walk(top):
                    found.update(map(int, read_or_empty(f"{folder}/cgroup.procs").split()))
                break
        return sorted(found)


def of_process(pid: int, root: str = ROOT, proc: str = "/proc") -> Cgroup:
    """The cgroups of a process, from its /proc/PID/cgroup (cgroups(7)); empty if it is gone."""
    memberships = list(_memberships(read_or_empty(f"{proc}/{pid}/cgroup")))
    if _is_unified(root):
        paths = [path for names, path in memberships if not names]
        return Cgroup(unified=f"{root}/{paths[0]}") if paths else Cgroup()
    return Cgroup(
        controllers={name: f"{root}/{name}/{path}" for names, path in memberships for name in names}
    )


@functools.cache
def _is_unified(root: str) -> bool:
    """Whether this host has cgroup v2 alone, which it has from its start."""
    return os.path.exists(f"{root}/cgroup.controllers")


def _memberships(text: str) -> Iterator[tuple[list[str], str]]:
    for names, path in _MEMBERSHIP.findall(text):
        yield (names.split(",") if names else []), path


def join(path: str, pid: int) -> None:
    """Move a process into the cgroup at `path`, made if need be; raises OSError."""
    if os.path.exists(f"{ROOT}/cgroup.controllers"):
        tops = [ROOT]
    else:
        tops = [entry.path for entry in os.scandir(ROOT) if entry.is_dir(follow_symlinks=False)]
        tops = [top for top in tops if not top.endswith("/unified")]
    for top in tops:
        folder = top
        for name in filter(None, path.split("/")):
            parent, folder = folder, f"{folder}/{name}"
            os.makedirs(folder, exist_ok=True)
            for file in _INHERITED:
                if read_or_empty(f"{folder}/{file}").strip() == "":
                    _inherit(parent, folder, file)
        write(f"{folder}/cgroup.procs", b"%d" % pid)


def _inherit(parent: str, folder: str, file: str) -> None:
    """A new cpuset of cgroup v1 has no CPUs, and takes no process before it has."""
    if value := read_or_empty(f"{parent}/{file}").strip():
        write(f"{folder}/{file}", value.encode())


def path_in(bundle: str) -> str:
    """The cgroupsPath of a bundle's spec, "" without one."""
    try:
        spec = json.loads(read_or_empty(f"{bundle}/config.json"))
        return str((spec.get("linux") or {}).get("cgroupsPath") or "")
    except (ValueError, AttributeError):
        return ""


def remove_empty(path: str, root: str = ROOT) -> bool:
    """Remove a runtime's cgroups that it did not live to remove; whether there are none now.

    `path` is the runtime spec's cgroupsPath; one of systemd's, or none, is left to them.
    """
    if not path.startswith("/") or not path.strip("/"):
        return True
    left = False
    pure = os.path.exists(f"{root}/cgroup.controllers")
    tops = [root] if pure else [entry.path for entry in os.scandir(root) if entry.is_dir()]
    for top in tops:
        for folder, _, _ in os.walk(f"{top}{path}", topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                left = True  # a process is in it still
    return not left
