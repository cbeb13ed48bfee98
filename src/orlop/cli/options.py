"""Values of command-line options: sizes, binds, variables."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from orlop.errors import InvalidArgument
from orlop.oci.spec import Bind

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def memory(text: str) -> int:
    """`512m` in bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size such as 512m or 2g')
    return int(match[1]) * int(1024 ** _POWER[match[2].lower()])


def cpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of CPUs such as 1.5')
    return value


def environment(entries: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`; a bare `NAME` passes ours on, if we have it."""
    env = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise InvalidArgument(f'variable "{entry}" has no name')
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def bind(text: str) -> Bind:
    """`SOURCE:TARGET[:ro|rw]`, both absolute paths, the source there."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source.startswith("/") or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidArgument(
            f'volume "{text}" is not SOURCE:TARGET[:ro] with two absolute paths '
            "(named volumes do not exist here)"
        )
    if not Path(source).exists():
        raise InvalidArgument(f'volume "{text}": "{source}" does not exist on this host')
    return Bind(source, target, mode == "ro")
