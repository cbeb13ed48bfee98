"""The configuration's file: read, checked, with flags of the command line on top, and written.

Every bad value is one `ConfigError` that names the file, the key, what was expected and what is
there instead.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from orlop.daemon.config import (
    DEFAULT_FILE,
    FIREWALLS,
    FORMATS,
    LEVELS,
    NETWORKS,
    OTLP,
    OWN_SHIM,
    SHARING,
    SNAPSHOTTERS,
    SOCKET_PATH_MAX,
    STATE_MAX,
    Config,
    ConfigError,
    Network,
    ProxyPlugin,
    StreamProcessor,
)

_CHOICES = {
    "log.level": LEVELS,
    "log.format": FORMATS,
    "content.sharing": SHARING,
    "network.default": NETWORKS,
    "network.firewall": FIREWALLS,
    "tracing.protocol": ("", *OTLP),
}
_SHOWN = ("metrics", "status")
_PATHS = (
    "root",
    "state",
    "grpc.address",
    "snapshots.serve",
    "serve.cert",
    "serve.key",
    "serve.client_ca",
    *(f"{part}.{name}" for part in _SHOWN for name in ("token", "cert", "key", "client_ca")),
    "trust.policy",
    "image_verifier.bin_dir",
    "network.cni_config",
)
_MAY_BE_EMPTY = (
    "grpc.address",
    "snapshots.serve",
    *(f"{part}.{name}" for part in ("serve", *_SHOWN) for name in ("cert", "key", "client_ca")),
    *(f"{part}.token" for part in _SHOWN),
)
_MINIMUM = {
    "grpc.uid": -1,
    "grpc.gid": -1,
    "snapshots.quota_size": 0,
    "snapshots.quota_inodes": 0,
    "diff.max_size": 1,
    "diff.max_entries": 1,
    "diff.max_ratio": 1,
    "diff.max_zeros": 0,
    "serve.max_blob": 1,
    "image_verifier.max_verifiers": -1,
    "image_verifier.per_verifier_timeout": 1,
    "restart.interval": 1,
    "metrics.filesystem_age": 0,
    "gc.deletion_threshold": 0,
    "gc.mutation_threshold": 0,
    "network.pool_prefix": 1,
    "metrics.max_containers": 1,
    "network.pool6_prefix": 1,
    "network.cni_timeout": 1,
}
_ID_MAX = (1 << 32) - 2  # the one after is, as -1, no owner
_MAXIMUM = {
    "grpc.uid": _ID_MAX,
    "grpc.gid": _ID_MAX,
    "gc.pause_threshold": 0.5,
    "tracing.sampling_ratio": 1.0,
}


def load(path: Path | None, overrides: Mapping[str, str | None]) -> Config:
    """The configuration in `path`, or in the default file if there is one.

    `overrides` are dotted keys with values from the command line, None where there is none. The
    folders in it are without links. Raises ConfigError.
    """
    source = path or DEFAULT_FILE
    config = Config()
    try:
        text = source.read_bytes()
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f'configuration "{path}" does not exist') from None
    except OSError as error:
        raise ConfigError(f'configuration "{source}" cannot be read: {error.strerror}') from None
    else:
        config = parse(text, str(source))
    for key, value in overrides.items():
        if value is not None:
            config = _override(config, key, value)
    # As the table of mounts has them, where the daemon looks for what is mounted below.
    config = replace(
        config, root=os.path.realpath(config.root), state=os.path.realpath(config.state)
    )
    _check_whole(config)
    return config


def parse(text: bytes, source: str) -> Config:
    """Read TOML; `source` names it in errors."""
    try:
        document = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f'configuration "{source}" is not TOML: {error}') from None
    config: Config = _Reader(source).table(Config(), document, "")
    return config


class _Reader:
    """Fits a TOML table onto a dataclass of defaults, key by key."""

    def __init__(self, source: str) -> None:
        self._source = source

    def table(self, defaults: Any, values: Mapping[str, Any], prefix: str) -> Any:
        known = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
        changes = {}
        for name, value in values.items():
            key = f"{prefix}{name}"
            if name not in known:
                raise ConfigError(self._unknown(key, name, known))
            changes[name] = self._value(key, known[name], value)
        return replace(defaults, **changes)

    def _value(self, key: str, default: Any, value: Any) -> Any:
        if key == "runtimes":
            return self._runtimes(self._typed(key, value, dict, "a table"))
        if key == "stream_processors":
            return self._processors(self._typed(key, value, dict, "a table"))
        if key == "proxy_plugins":
            return self._plugins(self._typed(key, value, dict, "a table"))
        if isinstance(default, dict):
            return self._texts(key, self._typed(key, value, dict, "a table"))
        if isinstance(default, str):
            return self._string(key, self._typed(key, value, str, "a string"))
        if isinstance(default, tuple):
            return self._strings(key, value)
        if isinstance(default, bool):
            return self._switch(key, value)
        if isinstance(default, int):
            return self._number(key, self._typed(key, value, int, "a whole number"))
        if isinstance(default, float):
            return self._fraction(key, self._typed(key, value, (int, float), "a number"))
        return self.table(default, self._typed(key, value, dict, "a table"), f"{key}.")

    def _typed(self, key: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, expected, value)
        return value

    def _string(self, key: str, value: str) -> str:
        check_string(key, value, f'configuration "{self._source}"')
        return value

    def _strings(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(key, "a list of strings", value)
        return tuple(value)

    def _switch(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def _number(self, key: str, value: int) -> int:
        least, most = _MINIMUM[key], _MAXIMUM.get(key, math.inf)
        if not least <= value <= most:
            bounds = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
            raise self._wrong(key, f"a whole number {bounds}", value)
        return value

    def _fraction(self, key: str, value: float) -> float:
        most = _MAXIMUM.get(key, math.inf)
        if not 0 <= value <= most:
            expected = "a number that is not negative" if math.isinf(most) else f"from 0 to {most}"
            raise self._wrong(key, expected, value)
        return float(value)

    def _runtimes(self, value: Mapping[str, Any]) -> dict[str, str]:
        for name, target in value.items():
            if not isinstance(target, str) or not (target == OWN_SHIM or target.startswith("/")):
                expected = f'"{OWN_SHIM}" or the absolute path of a shim binary'
                raise self._wrong(f'runtimes."{name}"', expected, target)
        return dict(value)

    def _processors(self, value: Mapping[str, Any]) -> dict[str, StreamProcessor]:
        return {
            name: self._processor(f'stream_processors."{name}"', table)
            for name, table in value.items()
        }

    def _processor(self, key: str, value: Any) -> StreamProcessor:
        table = self._typed(key, value, dict, "a table")
        made: StreamProcessor = self.table(StreamProcessor(), table, f"{key}.")
        if not made.path.startswith("/"):
            raise self._wrong(f"{key}.path", "an absolute path", made.path)
        for name in ("accepts", "returns"):
            if not getattr(made, name):
                raise self._wrong(f"{key}.{name}", "a media type", getattr(made, name))
        if unset := [each for each in made.env if "=" not in each]:
            raise self._wrong(f"{key}.env", "a list of KEY=VALUE", unset[0])
        return made

    def _plugins(self, value: Mapping[str, Any]) -> dict[str, ProxyPlugin]:
        found = {}
        for name, table in value.items():
            key = f'proxy_plugins."{name}"'
            plugin: ProxyPlugin = self.table(
                ProxyPlugin(), self._typed(key, table, dict, "a table"), f"{key}."
            )
            if plugin.type != "snapshot":
                raise self._wrong(f"{key}.type", '"snapshot"', plugin.type)
            if not plugin.address.startswith("/"):
                raise self._wrong(f"{key}.address", "the absolute path of a socket", plugin.address)
            if name in SNAPSHOTTERS:
                raise ConfigError(
                    f'configuration "{self._source}": {key} has the name of a snapshotter that is '
                    "built in"
                )
            found[name] = plugin
        return found

    def _texts(self, key: str, value: Mapping[str, Any]) -> dict[str, str]:
        for name, text in value.items():
            if not isinstance(text, str):
                raise self._wrong(f"{key}.{name}", "a string", text)
        return dict(value)

    def _unknown(self, key: str, name: str, known: Mapping[str, Any]) -> str:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        if near:
            hint = f'did you mean "{key.removesuffix(name)}{near[0]}"?'
        else:
            hint = f"known here: {', '.join(known)}"
        return f'configuration "{self._source}": unknown key "{key}"; {hint}'

    def _wrong(self, key: str, expected: str, found: Any) -> ConfigError:
        return _wrong(f'configuration "{self._source}"', key, expected, found)


def check_string(key: str, value: str, source: str) -> None:
    """Refuse a string that is no choice of its key, or no absolute path where one is needed."""
    choices = _CHOICES.get(key)
    if choices and value not in choices:
        raise _wrong(source, key, "one of " + ", ".join(f'"{each}"' for each in choices), value)
    if key in _PATHS and not value.startswith("/") and (value or key not in _MAY_BE_EMPTY):
        raise _wrong(source, key, "an absolute path", value)


def _wrong(source: str, key: str, expected: str, found: Any) -> ConfigError:
    return ConfigError(f"{source}: {key} must be {expected}, not {_toml(found)}")


def _override(config: Config, key: str, value: str) -> Config:
    if key in _PATHS:
        value = os.path.abspath(value)  # noqa: PTH100 - pathlib has no lexical equivalent
    check_string(key, value, "command line")
    section, _, name = key.rpartition(".")
    change: dict[str, Any] = {name: value}
    if section:
        change = {section: replace(getattr(config, section), **change)}
    return replace(config, **change)


def _check_whole(config: Config) -> None:
    root, state = Path(config.root), Path(config.state)
    if root == state or root in state.parents or state in root.parents:
        raise ConfigError(
            f'root "{root}" and state "{state}" must be different folders, neither in the other'
        )
    if len(os.fsencode(config.state)) > STATE_MAX:
        raise ConfigError(
            f'state "{state}" is longer than {STATE_MAX} bytes: the paths of sockets in it would '
            f"not fit"
        )
    if len(os.fsencode(config.ttrpc_address)) > SOCKET_PATH_MAX:
        raise ConfigError(
            f'address "{config.address}" is longer than {SOCKET_PATH_MAX - len(".ttrpc")} bytes'
        )
    _check_snapshotter(config)
    _check_network(config.network)


def _check_snapshotter(config: Config) -> None:
    known = (*SNAPSHOTTERS, *config.proxy_plugins)
    if config.snapshots.default not in known:
        choices = ", ".join(f'"{each}"' for each in known)
        raise _wrong(
            "configuration", "snapshots.default", f"one of {choices}", config.snapshots.default
        )


def _check_network(network: Network) -> None:
    name = network.bridge
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,14}", name):
        raise ConfigError(
            f'network.bridge must be a letter and up to 14 letters, digits, "-" and "_", '
            f'not "{name}"'
        )
    pools = (("pool", network.pool, network.pool_prefix, 4, 30),
             ("pool6", network.pool6, network.pool6_prefix, 6, 126))  # fmt: skip
    for key, text, prefix, version, longest in pools:
        try:
            pool = ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigError(f"network.{key}: {error}") from None
        if pool.version != version or not pool.prefixlen <= prefix <= longest:
            raise ConfigError(
                f"network.{key} must be a prefix of IPv{version}, and network.{key}_prefix "
                f"between its length and {longest}"
            )


def dump(config: Config) -> str:
    """The configuration as TOML."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(table: Any, name: str) -> Iterator[str]:
    values = {each.name: getattr(table, each.name) for each in fields(table)}
    if isinstance(table, Config):
        values["grpc"] = replace(table.grpc, address=table.address)
    else:
        yield f"\n[{name}]"
    for key, value in values.items():
        if key in ("proxy_plugins", "stream_processors"):
            for plugin, entry in value.items():
                yield from _lines(entry, f"{key}.{_toml(plugin)}")
        elif isinstance(value, Mapping):
            yield f"\n[{f'{name}.' if name else ''}{key}]"
            yield from (f"{_toml(runtime)} = {_toml(target)}" for runtime, target in value.items())
        elif hasattr(value, "__dataclass_fields__"):
            yield from _lines(value, key)
        else:
            yield f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            plain = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{plain}"' if plain.isprintable() else repr(value)
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case dict():
            return "a table"
        case _:
            return str(value)
