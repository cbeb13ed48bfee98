"""Descriptions of devices: JSON and YAML files, checked field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orlop import typed
from orlop.errors import FailedPrecondition, InvalidArgument, NotFound
from orlop.oci.cdi.names import is_kind, is_name, split

_SIZE_MAX = 4 << 20
_VERSION = re.compile(r"(0\.[3-9]|1\.0)\.\d+")
HOOKS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)


class _Part(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A part of a description."""


class DeviceNode(_Part):
    """A device node; what is not said is as on the host. `permissions` are of r, w and m."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Part):
    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class Hook(_Part):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class IntelRdt(_Part):
    clos_id: str = msgspec.field(name="closID", default="")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = msgspec.field(name="enableCMT", default=False)
    enable_mbm: bool = msgspec.field(name="enableMBM", default=False)


class Edits(_Part):
    """What is done to a container's runtime spec."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    mounts: list[Mount] = []
    hooks: list[Hook] = []
    additional_gids: list[int] = []
    intel_rdt: IntelRdt | None = None


class Device(_Part):
    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits = msgspec.field(default_factory=Edits)


class Description(_Part):
    """A file: the devices of one kind, and what each container that has one of them gets."""

    cdi_version: str
    kind: str
    devices: list[Device]
    annotations: dict[str, str] = {}
    container_edits: Edits = msgspec.field(default_factory=Edits)


@dataclass(frozen=True, slots=True)
class Found:
    """A device, and the file that describes it."""

    path: Path
    description: Description
    device: Device


def find(names: Sequence[str], folders: Sequence[str]) -> list[Found]:
    """The devices with these names, once each.

    Raises InvalidArgument for what is no name, NotFound for a device that no file describes, and
    FailedPrecondition for one that two files of a folder describe.
    """
    wanted = dict.fromkeys(map(split, names))
    found: dict[tuple[str, str], Found] = {}
    broken: list[str] = []
    for folder in folders:
        here: dict[tuple[str, str], Found] = {}
        for path in _files(Path(folder)):
            try:
                description = read(path)
            except InvalidArgument as error:
                broken.append(error.message)
                continue
            for device in description.devices:
                key = (description.kind, device.name)
                if key in wanted and key in here:
                    raise FailedPrecondition(
                        f'device "{"=".join(key)}" is in both "{here[key].path}" and "{path}"'
                    )
                here[key] = Found(path, description, device)
        found |= here
    for key in wanted:
        if key not in found:
            where = " or ".join(folders)
            why = "".join(f"; {each}" for each in broken)
            raise NotFound(f'device "{"=".join(key)}" in the files of {where}{why}')
    return [found[key] for key in wanted]


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.suffix in (".json", ".yaml", ".yml"))


def read(path: Path) -> Description:
    """The description in a file; InvalidArgument names the file and what is wrong with it."""
    try:
        found = typed.convert(_document(path), Description)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgument(f'file "{path}": {reason}') from None
    if problem := next(_problems(found), ""):
        raise InvalidArgument(f'file "{path}": {problem}')
    return found


def _document(path: Path) -> Any:
    if not path.is_file() or path.stat().st_size > _SIZE_MAX:
        raise ValueError(f"is no file of at most {_SIZE_MAX >> 20} MiB")
    data = path.read_bytes()
    if path.suffix == ".json":
        return json.loads(data)
    import yaml  # noqa: PLC0415 - for those who have such files only

    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _problems(found: Description) -> Iterator[str]:
    if not _VERSION.fullmatch(found.cdi_version):
        yield f'version "{found.cdi_version}" is not known here, but 0.3 to 1.0'
    if not is_kind(found.kind):
        yield f'kind "{found.kind}" is not VENDOR/CLASS'
    names: set[str] = set()
    for device in found.devices:
        if not is_name(device.name):
            yield f'device "{device.name}" cannot be called so'
        if device.name in names:
            yield f'device "{device.name}" is there twice'
        names.add(device.name)
        for problem in _edit_problems(device.container_edits):
            yield f'device "{device.name}": {problem}'
    yield from _edit_problems(found.container_edits)


def _edit_problems(edits: Edits) -> Iterator[str]:
    for variable in edits.env:
        if not variable.partition("=")[0] or "=" not in variable:
            yield f'variable "{variable}" is not NAME=VALUE'
    for node in edits.device_nodes:
        if not node.path.startswith("/"):
            yield f'device node "{node.path}" is no absolute path'
        if node.type not in ("", "b", "c", "u", "p"):
            yield f'device node "{node.path}": type "{node.type}" is none of b, c, u, p'
        if set(node.permissions) - set("rwm"):
            yield f'device node "{node.path}": permissions "{node.permissions}" are not of r, w, m'
    for mount in edits.mounts:
        if not mount.host_path or not mount.container_path.startswith("/"):
            yield f'mount "{mount.host_path}" to "{mount.container_path}" has no absolute paths'
    for hook in edits.hooks:
        if hook.hook_name not in HOOKS:
            yield f'hook "{hook.hook_name}" is none of {", ".join(HOOKS)}'
        if not hook.path.startswith("/"):
            yield f'hook "{hook.hook_name}": "{hook.path}" is no absolute path'
