"""`--security-opt` of `orlop run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orlop.errors import InvalidArgument

KNOWN = "no-new-privileges, seccomp=…, apparmor=…, label=…, systempaths=unconfined"
_SELINUX = Path("/sys/fs/selinux/enforce")
_LABEL_FIELDS = ("user", "role", "type", "level")


class Security:
    """What the options say. `seccomp` is the default profile, none, or the path of one."""

    def __init__(self) -> None:
        self.no_new_privileges = False
        self.seccomp: bool | str = True
        self.apparmor = ""
        self.masked = True
        self.selinux: dict[str, str] = {}

    @property
    def selinux_label(self) -> str:
        """The process's label, "" for none, or where there is no SELinux."""
        if not self.selinux or "disable" in self.selinux or not _SELINUX.exists():
            return ""
        usual = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}
        return ":".join({**usual, **self.selinux}[name] for name in _LABEL_FIELDS)


def parse(texts: Sequence[str]) -> Security:
    """Raises InvalidArgument for what is not known."""
    found = Security()
    for text in texts:
        split = min((text.find(mark) for mark in "=:" if mark in text), default=len(text))
        name, value = text[:split], text[split + 1 :]
        match name, value:
            case "no-new-privileges", "" | "true" | "false":
                found.no_new_privileges = value != "false"
            case "seccomp", "unconfined":
                found.seccomp = False
            case "seccomp", "builtin":
                found.seccomp = True
            case "seccomp", _ if value:
                found.seccomp = value
            case "apparmor", _ if value:
                found.apparmor = value
            case "systempaths", "unconfined":
                found.masked = False
            case "label", _ if _label(found, value):
                pass
            case _:
                raise InvalidArgument(f'security option "{text}" is none of {KNOWN}')
    return found


def _label(found: Security, value: str) -> bool:
    name, colon, setting = value.partition(":")
    if value == "disable" or (colon and name in _LABEL_FIELDS and setting):
        found.selinux[name] = setting
        return True
    return False
