"""Put devices into a runtime spec."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orlop.errors import FailedPrecondition
from orlop.oci.cdi.files import DeviceNode, Edits, Found, Hook, IntelRdt, Mount, find
from orlop.oci.cdi.names import DEFAULT_FOLDERS


def inject(
    spec: dict[str, Any], names: Sequence[str], folders: Sequence[str] = DEFAULT_FOLDERS
) -> None:
    """Give the container of a runtime spec these devices.

    What a file says for all of its devices is done once, before them. Raises as `files.find`, and
    FailedPrecondition for a device node that this host does not have.
    """
    done: set[Path] = set()
    for found in find(names, folders):
        if found.path not in done:
            done.add(found.path)
            _apply(spec, found.description.container_edits, found)
        _apply(spec, found.device.container_edits, found)
    mounts = spec.get("mounts")
    if mounts:
        # A mount below another comes after it; otherwise the order is as it was.
        mounts.sort(key=lambda mount: len(Path(mount["destination"]).parts))


def _apply(spec: dict[str, Any], edits: Edits, found: Found) -> None:
    process, linux = spec.setdefault("process", {}), spec.setdefault("linux", {})
    if edits.env:
        names = {each.partition("=")[0] for each in edits.env}
        kept = [each for each in process.get("env") or () if each.partition("=")[0] not in names]
        process["env"] = [*kept, *edits.env]
    user = process.setdefault("user", {"uid": 0, "gid": 0})
    for node in edits.device_nodes:
        _add_node(linux, node, user.get("uid", 0), found)
    for mount in edits.mounts:
        _add_mount(spec.setdefault("mounts", []), mount)
    for hook in edits.hooks:
        spec.setdefault("hooks", {}).setdefault(hook.hook_name, []).append(_hook(hook))
    groups = [gid for gid in edits.additional_gids if gid]
    if groups:
        user["additionalGids"] = list(dict.fromkeys([*(user.get("additionalGids") or ()), *groups]))
    if edits.intel_rdt is not None:
        linux["intelRdt"] = _rdt(edits.intel_rdt)


def _add_node(linux: dict[str, Any], node: DeviceNode, uid: int, found: Found) -> None:
    made = _node(node, found)
    if node.uid is not None or uid:
        made["uid"] = uid if node.uid is None else node.uid
    if node.gid is not None:
        made["gid"] = node.gid
    others = [each for each in linux.get("devices") or () if each["path"] != node.path]
    linux["devices"] = [*others, made]
    if made["type"] in ("b", "c"):
        rule = {
            "allow": True,
            "type": made["type"],
            "major": made["major"],
            "minor": made["minor"],
            "access": node.permissions or "rwm",
        }
        linux.setdefault("resources", {}).setdefault("devices", []).append(rule)


def _node(node: DeviceNode, found: Found) -> dict[str, Any]:
    made: dict[str, Any] = {"path": node.path, "type": node.type}
    mode = node.file_mode
    if node.type == "p":
        made |= {"major": 0, "minor": 0}
    elif node.type and (node.major or node.minor):
        made |= {"major": node.major, "minor": node.minor}
    else:
        info = _stat(node, found)
        kind = "b" if stat.S_ISBLK(info.st_mode) else "c"
        if node.type and node.type.replace("u", "c") != kind:
            raise _trouble(node, found, f'is of type "{kind}", not "{node.type}"')
        made |= {"type": kind, "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
        mode = stat.S_IMODE(info.st_mode) if mode is None else mode
    if mode is not None:
        made["fileMode"] = mode
    return made


def _stat(node: DeviceNode, found: Found) -> os.stat_result:
    try:
        info = Path(node.host_path or node.path).stat()
    except OSError as error:
        raise _trouble(node, found, str(error.strerror).lower()) from None
    if not (stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode)):
        raise _trouble(node, found, "is no device")
    return info


def _trouble(node: DeviceNode, found: Found, reason: str) -> FailedPrecondition:
    name = f"{found.description.kind}={found.device.name}"
    where = node.host_path or node.path
    return FailedPrecondition(f'device "{name}" of "{found.path}": "{where}" {reason}')


def _add_mount(mounts: list[dict[str, Any]], mount: Mount) -> None:
    made: dict[str, Any] = {"destination": mount.container_path, "source": mount.host_path}
    if mount.type:
        made["type"] = mount.type
    made["options"] = list(mount.options)
    mounts[:] = [each for each in mounts if each["destination"] != mount.container_path]
    mounts.append(made)


def _hook(hook: Hook) -> dict[str, Any]:
    made: dict[str, Any] = {"path": hook.path}
    if hook.args:
        made["args"] = list(hook.args)
    if hook.env:
        made["env"] = list(hook.env)
    if hook.timeout is not None:
        made["timeout"] = hook.timeout
    return made


def _rdt(wanted: IntelRdt) -> dict[str, Any]:
    made = {
        "closID": wanted.clos_id,
        "l3CacheSchema": wanted.l3_cache_schema,
        "memBwSchema": wanted.mem_bw_schema,
        "enableCMT": wanted.enable_cmt,
        "enableMBM": wanted.enable_mbm,
    }
    return {key: value for key, value in made.items() if value}
