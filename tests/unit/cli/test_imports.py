"""What the command loads before it is needed: it must start fast."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ["grpc", "rich", "urllib3", "asyncio", "orlop.registry", "orlop.credentials.helper"]


@pytest.mark.parametrize(
    "command",
    [
        "version",
        "images",
        "pull",
        "push",
        "run",
        "load",
        "login",
        "manifest_inspect",
        "image_inspect",
    ],
)
def test_a_command_loads_nothing_heavy(command: str) -> None:
    imports = f"import sys, orlop.cli.main, orlop.client, orlop.cli.commands.{command}"
    code = f"{imports}; print([m for m in {_HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
