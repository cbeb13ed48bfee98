"""Network configurations as files have them: lists, and the single ones of before 1.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from orlop.errors import InvalidArgument
from orlop.network.cni import versions
from orlop.network.cni.model import Json, NetworkConfig, PluginConfig, check_name

_BOOLEANS = {"true": True, "false": False}


def is_list(config: Json) -> bool:
    """Whether it is a list of plugins, and not one plugin's configuration."""
    return "plugins" in config or "type" not in config


def wants_more(config: Json) -> bool:
    """Whether plugins of the folder beside a list's file belong to it (1.1)."""
    return not _boolean(config, "loadOnlyInlinedPlugins")


def load(text: bytes) -> Json:
    """The JSON object of a file; InvalidArgument for anything else."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("it is no JSON object")
    return found


def network(config: Json, more: Sequence[Json] = ()) -> NetworkConfig:
    """The network that a list describes, with `more` plugins behind its own, or a single one.

    InvalidArgument says what is wrong with it.
    """
    if not is_list(config):
        name, version = config.get("name"), config.get("cniVersion")
        config = {"name": name, "cniVersion": version, "plugins": [config]}
        config = {key: value for key, value in config.items() if value is not None}
    name = config.get("name")
    if not isinstance(name, str):
        raise InvalidArgument("it has no name")
    check_name("its name", name)
    inline = config.get("plugins", [])
    if not isinstance(inline, list) or not all(isinstance(each, dict) for each in inline):
        raise InvalidArgument("its plugins are no list of objects")
    plugins = [*inline, *more]
    if not plugins:
        raise InvalidArgument("it has no plugins")
    whole = {**config, "plugins": plugins, "loadOnlyInlinedPlugins": True} if more else config
    return NetworkConfig(
        name=name,
        versions=_versions(config),
        plugins=tuple(map(_plugin, plugins)),
        disable_check=_boolean(config, "disableCheck"),
        disable_gc=_boolean(config, "disableGC"),
        text=msgspec.json.encode(whole),
    )


def _plugin(config: Json) -> PluginConfig:
    kind = config.get("type")
    if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
        raise InvalidArgument(f'a plugin\'s type is no name of a program: "{kind}"')
    return PluginConfig(kind, config)


def _versions(config: Json) -> tuple[str, ...]:
    """Those offered that are spoken here; a newer one than that is no error if there are others."""
    offered: Any = config.get("cniVersions", [])
    if not isinstance(offered, list):
        raise InvalidArgument("its cniVersions are no list")
    offered = [*offered, *([config["cniVersion"]] if "cniVersion" in config else [])]
    if not all(isinstance(each, str) for each in offered):
        raise InvalidArgument("a cniVersion of it is no text")
    try:
        for each in offered:
            versions.key(each)
    except ValueError as error:
        raise InvalidArgument(f"cniVersion {error}") from None
    found = [each for each in versions.SUPPORTED if each in offered]
    if not found:
        have = ", ".join(offered) or "none"
        raise InvalidArgument(f"its cniVersion ({have}) is none of {', '.join(versions.SUPPORTED)}")
    return tuple(found)


def _boolean(config: Json, key: str) -> bool:
    """As libcni reads it: also as a text."""
    value = config.get(key, False)
    if isinstance(value, str):
        value = _BOOLEANS.get(value.lower())
    if not isinstance(value, bool):
        raise InvalidArgument(f"its {key} is neither true nor false")
    return value
