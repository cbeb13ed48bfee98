"""Seccomp profiles in files: as in the runtime spec, or in Docker's form, with conditions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from orlop.errors import InvalidArgument

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "riscv64": "riscv64"}
_OWN_ARCHITECTURE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_KEPT = ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")
_RULE = ("names", "action", "errnoRet", "args")


def load(
    path: str,
    capabilities: Collection[str],
    machine: str = os.uname().machine,
    kernel: str = os.uname().release,
) -> dict[str, Any]:
    """The `linux.seccomp` object for a process that holds `capabilities` (`CAP_…` names).

    Raises InvalidArgument for a file that cannot be read, or is no profile.
    """
    try:
        found = json.loads(Path(path).read_bytes())
        made = {key: found[key] for key in _KEPT if key in found}
        if "defaultAction" not in made:
            raise ValueError("no defaultAction")
        made["architectures"] = list(_architectures(found, machine))
        made["syscalls"] = [
            _rule(rule)
            for rule in found.get("syscalls") or ()
            if _applies(rule, capabilities, machine, kernel)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgument(f'seccomp profile "{path}": {reason}') from None
    return {key: value for key, value in made.items() if value not in (None, [])}


def _architectures(found: Mapping[str, Any], machine: str) -> Iterator[str]:
    yield from found.get("architectures") or ()
    own = _OWN_ARCHITECTURE.get(machine, "")
    for each in found.get("archMap") or ():
        if each["architecture"] == own:
            yield own
            yield from each.get("subArchitectures") or ()


def _applies(
    rule: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: str
) -> bool:
    wanted, barred = rule.get("includes") or {}, rule.get("excludes") or {}
    name = _GO_NAMES.get(machine, machine)
    if wanted.get("arches") and name not in wanted["arches"]:
        return False
    if not set(wanted.get("caps") or ()) <= set(capabilities):
        return False
    if wanted.get("minKernel") and _number(kernel) < _number(wanted["minKernel"]):
        return False
    if name in (barred.get("arches") or ()) or set(barred.get("caps") or ()) & set(capabilities):
        return False
    return not (barred.get("minKernel") and _number(kernel) >= _number(barred["minKernel"]))


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: rule[key] for key in _RULE if rule.get(key) not in (None, [])}
    if "name" in rule:  # Docker's oldest form
        made["names"] = [*made.get("names", []), rule["name"]]
    if not made["names"] or not made["action"]:
        raise ValueError("a rule without names or action")
    return made
