"""Keys that leave a container without ending it, in Docker's grammar."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from orlop.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROLS = {f"ctrl-{key}": code for code, key in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")}
_NAMES = {**_CONTROLS, "del": 127}


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach-keys", default="", metavar="KEYS",
        help=f"keys to leave it running, such as ctrl-x,x (default: {DEFAULT})")  # fmt: skip


def add_signals_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sig-proxy", type=truth, nargs="?", const=True, default=True,
        metavar="BOOL", help="pass signals on to the process (true)")  # fmt: skip


def truth(text: str) -> bool:
    """A boolean as Docker's flags take them."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f'"{text}" is neither true nor false')


def keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `a`, `ctrl-@,x`, `del`; "" is Docker's setting, or the default.

    Raises InvalidArgument for anything else.
    """
    found = [_key(each) for each in (text or _configured() or DEFAULT).split(",")]
    return bytes(found)


def _key(name: str) -> int:
    if name.lower() in _NAMES:
        return _NAMES[name.lower()]
    if len(name) == 1 and name.isascii():
        return ord(name)
    raise InvalidArgument(
        f'detach key "{name}" is neither a character nor ctrl- and one of a-z@[\\]^_'
    )


def _configured() -> str:
    """`detachKeys` of Docker's own file of settings."""
    folder = os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()
    try:
        found = json.loads(Path(folder, "config.json").read_bytes()).get("detachKeys", "")
    except (OSError, ValueError, AttributeError, RuntimeError):
        return ""
    return found if isinstance(found, str) else ""


class KeyWatch:
    """Looks for the keys in what is typed. A beginning of them is kept back until it is clear."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted = wanted
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on of the keys so far, and whether the sequence is complete."""
        passed = bytearray()
        for key in typed:
            self._held += bytes((key,))
            while not self._wanted.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._wanted:
                return bytes(passed), True
        return bytes(passed), False
