"""Values of command-line options that several commands have: sizes, variables."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from orlop.errors import InvalidArgument

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


def add_stopping(parser: argparse.ArgumentParser) -> None:
    """What `stop` and `restart` are told alike."""
    add = parser.add_argument
    add("-t", "--time", "--timeout", type=float, metavar="SECONDS",
        help="patience before the kill, -1 for ever (default: the container's, or 10)")  # fmt: skip
    add("-s", "--signal", default="", help="first signal (default: the container's, or TERM)")


def lines_of(path: str) -> list[str]:
    """The lines of a file of variables or labels, without comments."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f'file "{path}" cannot be read: {error}') from None
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
