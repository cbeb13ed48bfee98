"""A spare shim's exercise."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os
from orlop.shim.rehearsal import rehearse
before = os.listdir("/proc/self/fd")
answer = rehearse()
assert b'bundle "/nonexistent"' in answer, answer
assert os.listdir("/proc/self/fd") == before
"""


def test_it_comes_as_far_as_the_bundle_and_leaves_nothing() -> None:
    """In a process of its own: it takes signals."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
