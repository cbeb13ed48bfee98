"""Looking into an image's filesystem."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import os
from orlop.client.rootfs import in_private_mounts
from orlop.errors import PermissionDenied
os.setuid(65534)
try:
    in_private_mounts(print)
except PermissionDenied as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_ordinary_users_are_told_why_not() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "run orlop as root" in done.stdout, done.stderr
