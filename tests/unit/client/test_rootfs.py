"""Looking into an image's filesystem."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orlop.client import rootfs

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


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device")
def test_nothing_but_a_file_is_opened(tmp_path: Path) -> None:
    """To open a device, as an image may have one in the place of a file, does something already."""
    os.mknod(tmp_path / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # zeros without end
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("/file")
    read = {name: rootfs._read(str(tmp_path), f"/{name}") for name in ("file", "link", "none")}
    assert read == {"file": "text", "link": "text", "none": ""}
    assert [rootfs._read(str(tmp_path), name) for name in ("device", "fifo", ".")] == [""] * 3
