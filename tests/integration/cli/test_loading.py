"""What the command has loaded when its work is done: most of its time is that of imports.

What it loads before that is the unit test's (tests/unit/cli/test_imports.py).
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

_LOADED = """
import sys
before = set(sys.modules)
from orlop.cli.main import main
status = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before))
sys.exit(status)
"""
_SLOW = {
    "dataclasses",
    "inspect",
    "msgspec",
    "shutil",
    "tempfile",
    "pickle",
    "google.protobuf.text_format",
    "google.protobuf.internal.decoder",
}


def _loaded(orlopd: Orlopd, *command: str) -> set[str]:
    _, *arguments = orlopd.orlop_command(*command)
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_commands_load_little(orlopd: Orlopd, busybox: str) -> None:
    orlopd.orlop("run", "-d", "--name", "up", busybox, "sleep", "1000")
    limits = {
        ("run", "--rm", busybox, "true"): 185,
        ("exec", "up", "true"): 155,
        ("ps",): 150,
        ("images",): 140,
        ("stop", "--time", "0", "up"): 150,
        ("version",): 115,
    }
    for command, limit in limits.items():
        found = _loaded(orlopd, *command)
        assert not found & _SLOW, command
        assert len(found) <= limit, (command, sorted(found))
    orlopd.orlop("rm", "up")
