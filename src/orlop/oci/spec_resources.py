"""The part of a runtime spec that limits and gives: cgroup limits, devices (config-linux.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from orlop.errors import InvalidArgument

_PERIOD = 100_000


class Device(NamedTuple):
    """A device of the host, shown as `target`; `access` is of r, w and m."""

    source: str
    target: str
    access: str = "rwm"


class Wanted(Protocol):
    """What is limited and given; see `ContainerSpec`."""

    @property
    def privileged(self) -> bool: ...
    @property
    def memory(self) -> int: ...
    @property
    def memory_swap(self) -> int: ...
    @property
    def cpus(self) -> float: ...
    @property
    def cpu_shares(self) -> int: ...
    @property
    def cpuset(self) -> str: ...
    @property
    def pids(self) -> int: ...
    @property
    def devices(self) -> Sequence[Device]: ...


def limits(wanted: Wanted) -> dict[str, Any]:
    """The `resources` object."""
    allowed = [{"allow": wanted.privileged, "access": "rwm"}]
    allowed += [_rule(each) for each in wanted.devices]
    found: dict[str, Any] = {"devices": allowed}
    if wanted.memory:
        found["memory"] = {"limit": wanted.memory}
        if wanted.memory_swap:
            found["memory"]["swap"] = wanted.memory_swap
    cpu: dict[str, Any] = {}
    if wanted.cpus:
        cpu |= {"period": _PERIOD, "quota": int(wanted.cpus * _PERIOD)}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpuset:
        cpu["cpus"] = wanted.cpuset
    if cpu:
        found["cpu"] = cpu
    if wanted.pids:
        found["pids"] = {"limit": wanted.pids}
    return found


def merged(found: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Limits with others beside them: objects field by field, lists one after the other."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            found[key] = {**found.get(key, {}), **value}
        else:
            found[key] = [*found.get(key, []), *value]
    return found


def node(device: Device) -> dict[str, Any]:
    """The device as a node in the container; InvalidArgument if the host has no such device."""
    return _node(_stat(device), device.target)


def _rule(device: Device) -> dict[str, Any]:
    info = _stat(device)
    return {
        "allow": True,
        "type": _kind(info),
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "access": device.access,
    }


def _stat(device: Device) -> os.stat_result:
    try:
        info = Path(device.source).stat()
    except OSError as error:
        raise InvalidArgument(f'device "{device.source}": {error.strerror}') from None
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise InvalidArgument(f'"{device.source}" is no device')
    return info


def _kind(info: os.stat_result) -> str:
    return "c" if stat.S_ISCHR(info.st_mode) else "b"


def _node(info: os.stat_result, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "type": _kind(info),
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def host_devices(folder: Path) -> Iterator[dict[str, Any]]:
    """The device nodes below `folder`, without the terminals that a container has of its own.

    They come and go at any time.
    """
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in found:
        if path.name in ("pts", "shm", "mqueue", "console", "ptmx", "tty"):
            continue
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(info.st_mode):
            yield from host_devices(path)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            yield _node(info, str(path))
