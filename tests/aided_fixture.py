"""What mounts are made of that mount(2) alone cannot make: a disk in a file, a program for FUSE."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.disks import is_attached
from tests.patience import wait_for

_PROGRAM = """#!/bin/sh
[ "$9 ${10}" = "-t ship-overlayfs" ] || { echo "told $9 ${10}"; exit 1; }
[ -d "$HOLD" ] || { echo "nothing in the hold"; exit 1; }
exec mount -t overlay "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8"
"""


def disk(image: Path, content: Path) -> str:
    """An ext4 in a file, with what is in a folder."""
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", str(content), str(image)], check=True)
    return str(image)


def of_disk(image: Path, path: str) -> str:
    """What a file in it has, once its last mount has gone.

    Who has copied all mounts of the host just then, to start another container, has it as well.
    """
    wait_for(lambda: not is_attached(image))
    command = ["debugfs", "-R", f"cat {path}", str(image)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for FUSE's program, in the PATH: it mounts an overlay of the kernel's."""
    programs = folder / "programs"
    programs.mkdir()
    program = programs / "mount.fuse3"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOLD", str(folder))


def overlay(folder: Path, lower: Path) -> list[str]:
    """The options of an overlay whose upper folder is `folder/upper`."""
    for name in ("upper", "work"):
        (folder / name).mkdir()
    return [f"lowerdir={lower}", f"upperdir={folder}/upper", f"workdir={folder}/work"]
