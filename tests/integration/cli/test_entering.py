"""The command inside and on its way into the user namespace of a daemon without root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

_NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--cgroup"]
_ADDRESS = "from orlop.cli.rootless import default_address; print(default_address())"
_READY = "mount -t tmpfs tmpfs {hidden} && echo ready && exec sleep 1000"
# As a user, in a working folder that is deleted on the way; tells which it is in the end.
_ENTER = """
import os, sys
os.geteuid = lambda: 1000
from orlop.cli.rootless import enter
here, address = sys.argv[1:]
os.chdir(here)
if here.endswith("gone"):
    os.rmdir(here)
before = os.stat(".").st_ino
enter(address)
print(os.stat(".").st_ino == before, os.stat("/proc/self/ns/user").st_ino)
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a daemon that has namespaces, in which the folder `hidden` is not as it is outside."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    with subprocess.Popen(
        [*_NAMESPACES, "sh", "-c", _READY.format(hidden=hidden)],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        namespace = Path(f"/proc/{holder.pid}/ns/user").readlink()
        (tmp_path / "holder").write_text(f"{holder.pid} {namespace}\n")
        yield str(tmp_path / "orlop.sock")
        holder.kill()


def test_the_own_daemon_inside(tmp_path: Path) -> None:
    (tmp_path / "orlop").mkdir()
    own = tmp_path / "orlop/orlop.sock"
    own.touch()
    ask = [sys.executable, "-c", _ADDRESS]
    assert _told(ask, XDG_RUNTIME_DIR=str(tmp_path)) == "/run/orlop/orlop.sock"
    assert _told([*_NAMESPACES, *ask], XDG_RUNTIME_DIR=str(tmp_path)) == str(own)


@pytest.mark.parametrize("name", ["kept", "gone", "hidden/deep"])
def test_the_working_folder(name: str, address: str, tmp_path: Path) -> None:
    here = tmp_path / name
    here.mkdir()
    namespace = (tmp_path / "holder").read_text().split("[")[1].rstrip("]\n")
    assert _told([sys.executable, "-c", _ENTER, str(here), address]) == f"True {namespace}"


def _told(command: list[str], **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "ORLOP_ADDRESS"}
    done = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
