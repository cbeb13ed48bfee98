"""What `orlop-cni` loads: a runtime waits for it whenever a container starts or ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_LOADED = """
import sys
before = set(sys.modules)
from orlop.cni.main import main
main()
print(*sorted(set(sys.modules) - before))
"""
_NEVER = [
    "argparse",
    "ctypes",
    "dataclasses",
    "google.protobuf.internal.decoder",
    "grpc",
    "inspect",
    "logging",
    "msgspec",
    "pyroute2",
    "subprocess",
]


@pytest.mark.parametrize(
    ("command", "text", "others", "limit"),
    [
        ("VERSION", "{}", ["google.protobuf", "socket", "orlop.client"], 40),
        ("STATUS", '{"cniVersion": "1.1.0", "address": "/nowhere"}', ["orlop.network"], 110),
    ],
)
def test_it_loads_little(command: str, text: str, others: list[str], limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        input=text,
        env={**os.environ, "CNI_COMMAND": command},
        capture_output=True,
        text=True,
        check=True,
    )
    answer, *_, modules = done.stdout.splitlines()
    assert '"cniVersion": "1.1.0"' in answer
    found = modules.split()
    assert not [name for name in (*_NEVER, *others) if name in found]
    assert len(found) <= limit, found
