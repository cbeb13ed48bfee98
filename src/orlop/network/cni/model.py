"""What CNI speaks of: networks as they are configured, and one container's attachment to one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from orlop.errors import InvalidArgument

Json = dict[str, Any]
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_IFNAME_MAX = 15


class PluginConfig(msgspec.Struct, frozen=True):
    """One plugin of a chain: its program's name, and its configuration as it is written."""

    type: str
    config: Json

    @property
    def capabilities(self) -> set[str]:
        """What of an attachment's capability arguments it wants to know."""
        named = self.config.get("capabilities")
        return {key for key, value in named.items() if value} if isinstance(named, dict) else set()


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network: a chain of plugins (spec, section 1).

    `versions` are those that its author offers, the best one last; `text` is the file's JSON, with
    the plugins from the folder beside it, so that it can be read again without them.
    """

    name: str
    versions: tuple[str, ...]
    plugins: tuple[PluginConfig, ...]
    disable_check: bool = False
    disable_gc: bool = False
    text: bytes = b""

    @property
    def capabilities(self) -> set[str]:
        return {each for plugin in self.plugins for each in plugin.capabilities}


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A container's interface in a network: the parameters of the spec, section 2.

    `netns` is the path of its network namespace, "" if that is gone; `capabilities` are by name
    (portMappings, ips, mac, …), `args` what CNI_ARGS says.
    """

    container_id: str
    ifname: str
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)


def check_name(kind: str, text: str) -> None:
    """Raise InvalidArgument for what is no name of a network or id of a container in CNI."""
    if not _NAME.fullmatch(text):
        raise InvalidArgument(
            f'{kind} "{text}" must be letters, digits, "_", "." and "-", not "_.-" first'
        )


def check(attachment: Attachment) -> None:
    """Raise InvalidArgument for what plugins could take for something else."""
    check_name("CNI container id", attachment.container_id)
    name = attachment.ifname
    bad = not name or name in (".", "..") or any(c in "/:" or c.isspace() for c in name)
    if bad or len(name.encode()) > _IFNAME_MAX:
        raise InvalidArgument(f'"{name}" can be no name of an interface')
    for key, value in attachment.args:
        if not key or any(c in ";=" for c in key) or ";" in value:
            raise InvalidArgument(f'CNI argument "{key}={value}" cannot be written')
