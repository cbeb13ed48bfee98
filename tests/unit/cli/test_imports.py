"""What the command loads: it must start fast, and what it loads is most of the time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from orlop.cli import catalogue

# Never in the command itself: work is the daemon's.
_HEAVY = ["grpc", "rich", "urllib3", "asyncio", "orlop.registry", "orlop.credentials.helper"]
# Each takes some milliseconds, or tens, and few commands need them.
_SLOW = [
    "dataclasses",
    "inspect",
    "msgspec",
    "shutil",
    "tempfile",
    "hashlib",
    "pickle",
    "google.protobuf.text_format",
    "google.protobuf.internal.decoder",
]
_FOR_SOME_OPTION = ["orlop.oci.cdi", "orlop.oci.healthcheck", "orlop.client.logs", "termios"]
# Besides these, for what most containers do not ask for.
_OF_CREATION = ["ctypes", "orlop.oci.spec", "orlop.client.images"]

_LOADED = """
import sys
before = set(sys.modules)
from orlop.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sorted(set(sys.modules) - before))
"""


def _loaded(command: Sequence[str]) -> list[str]:
    """The modules of a command that does not find its daemon."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, "-a", "/nowhere/orlop.sock", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot reach orlopd" in done.stderr, done.stderr
    return done.stdout.splitlines()[-1].split()


_WITHOUT_DAEMON = {"login", "logout", "image verify"}
_ARGUMENTS = {
    "events": "",
    "images": "",
    "image ls": "",
    "image prune": "",
    "system df": "",
    "system prune": "",
    "store check": "",
    "store df": "",
    "ps": "",
    "stats": "",
    "version": "",
    "load": "-i /dev/null",
    "save": "-o /nowhere/file one",
    "cp": "one:/etc /tmp",
    "tag": "one two",
    "rename": "one two",
    "exec": "one true",
    "checkpoint create": "one two",
    "checkpoint rm": "one two",
    "network ls": "",
    "network prune": "-f",
    "network connect": "one two",
    "network disconnect": "one two",
    "netns ls": "",
}


def _commands() -> list[str]:
    words = list(catalogue.COMMANDS)
    words += [f"{group} {name}" for group, names in catalogue.GROUPS.items() for name in names]
    return [
        f"{each} {_ARGUMENTS.get(each, 'one')}" for each in words if each not in _WITHOUT_DAEMON
    ]


@pytest.mark.parametrize("command", _commands())
def test_no_command_loads_what_is_the_daemon_s(command: str) -> None:
    found = _loaded(command.split())
    assert not [name for name in _HEAVY if name in found]


@pytest.mark.parametrize(
    ("command", "others", "limit"),
    [
        ("version", [*_OF_CREATION, "pathlib", "json"], 105),
        ("ps", [*_OF_CREATION, "pathlib"], 145),
        ("images", ["ctypes", "orlop.oci.spec", "pathlib"], 130),
        ("exec one true", _OF_CREATION, 150),
        ("start one", _OF_CREATION, 145),
        ("stop one", _OF_CREATION, 145),
        ("rm one", _OF_CREATION, 130),
        ("pull one", ["ctypes", "orlop.oci.spec"], 155),
        ("run one true", _FOR_SOME_OPTION, 180),
    ],
)
def test_what_is_used_often_loads_little(command: str, others: list[str], limit: int) -> None:
    found = _loaded(command.split())
    assert not [name for name in (*_SLOW, *others) if name in found]
    assert len(found) <= limit, found
