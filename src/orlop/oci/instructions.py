"""Instructions of a Dockerfile that change an image's config, as `commit --change` takes them."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from orlop.errors import InvalidArgument
from orlop.oci.durations import nanoseconds

Config = dict[str, Any]

_SHELL = ["/bin/sh", "-c"]


def change(config: Config, instructions: Sequence[str]) -> None:
    """Apply instructions, one after the other, to the `config` object of an image config.

    Raises InvalidArgument for an instruction that is malformed, or that changes no config.
    """
    named = []
    for line in instructions:
        name, _, rest = line.strip().partition(" ")
        name, rest = name.upper(), rest.strip()
        action = _ACTIONS.get(name)
        if action is None or not rest:
            known = ", ".join(_ACTIONS)
            raise InvalidArgument(f'change "{line}" is not one of {known}, with its value')
        try:
            action(config, rest)
        except ValueError as error:
            raise InvalidArgument(f'change "{line}": {error}') from None
        if name == "ENTRYPOINT" and "CMD" not in named:
            config.pop("Cmd", None)  # it was meant for the entrypoint before
        named.append(name)


def _command(text: str) -> list[str]:
    """The JSON form, or a line for the shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [*_SHELL, text]


def _pairs(text: str) -> dict[str, str]:
    """`KEY=VALUE …`, with the quotes of a shell; or, as of old, `KEY VALUE`."""
    words = shlex.split(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value:
            raise ValueError(f'"{text}" is not KEY=VALUE')
        return {key: value.strip()}
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError(f'"{word}" is not KEY=VALUE')
        pairs[key] = value
    return pairs


def _env(config: Config, text: str) -> None:
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    env.update(_pairs(text))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _labels(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs(text)}


def _expose(config: Config, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        port, _, protocol = word.partition("/")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f'"{word}" is not PORT[/PROTOCOL]')
        ports[f"{port}/{(protocol or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    paths = json.loads(text) if text.startswith("[") else shlex.split(text)
    config["Volumes"] = {**(config.get("Volumes") or {}), **{str(path): {} for path in paths}}


def _workdir(config: Config, text: str) -> None:
    before = config.get("WorkingDir") or "/"
    config["WorkingDir"] = posixpath.normpath(posixpath.join("/", before, text))


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: Config, text: str) -> None:
    """`NONE`, or `[--interval=…] [--timeout=…] [--start-period=…] [--retries=…] CMD command`."""
    options: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        text = text.strip()
        name, equals, value = option.partition("=")
        if not equals or name not in _HEALTH_OPTIONS:
            raise ValueError(f'"{option}" is no option of a health check')
        key, convert = _HEALTH_OPTIONS[name]
        options[key] = convert(value)
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not command.strip():
        raise ValueError("a health check is NONE, or CMD and a command")
    words = _command(command.strip())
    test = ["CMD-SHELL", words[2]] if words[:2] == _SHELL else ["CMD", *words]
    config["Healthcheck"] = {"Test": test, **options}


_HEALTH_OPTIONS: dict[str, tuple[str, Callable[[str], int]]] = {
    "--interval": ("Interval", nanoseconds),
    "--timeout": ("Timeout", nanoseconds),
    "--start-period": ("StartPeriod", nanoseconds),
    "--retries": ("Retries", int),
}


def _setter(key: str, value: Callable[[str], Any]) -> Callable[[Config, str], None]:
    def action(config: Config, text: str) -> None:
        config[key] = value(text)

    return action


_ACTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _setter("Cmd", _command),
    "ENTRYPOINT": _setter("Entrypoint", _command),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _labels,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _setter("StopSignal", str),
    "USER": _setter("User", str),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
