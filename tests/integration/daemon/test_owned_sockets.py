"""Sockets that belong to others than the daemon's user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd, serving_with

pytestmark = pytest.mark.root

_UID, _GID = 4321, 4322
# Whoever runs the tests may have a Python that others cannot load anything of: it is loaded before.
_BECOME = """
import os, socket, sys
from google.protobuf.empty_pb2 import Empty
from orlop.client import Connection
def become(user, group):
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
path, user, group = sys.argv[1], *map(int, sys.argv[2:])
"""
_CONNECT = """
become(user, group)
socket.socket(socket.AF_UNIX).connect(path)
"""
_CALL = """
for change in (lambda: None, lambda: become(user, group)):
    change()
    with Connection(path) as connection:
        connection.version.version(Empty())
"""


def _owned(**grpc: int) -> Iterator[Orlopd]:
    daemon = Orlopd()
    daemon.folder.chmod(0o711)
    config = daemon.folder / "config.toml"
    lines = ["[grpc]", *(f"{key} = {value}" for key, value in grpc.items())]
    for section in ("metrics", "status"):
        lines += [f"[{section}]", f'address = "{daemon.state / section}.sock"']
    config.write_text("\n".join(lines))
    daemon.options = ["--config", str(config)]
    yield from serving_with(daemon)


@pytest.fixture
def of_group() -> Iterator[Orlopd]:
    yield from _owned(gid=_GID)


@pytest.fixture
def of_user() -> Iterator[Orlopd]:
    yield from _owned(uid=_UID)


def _sockets(orlopd: Orlopd) -> list[Path]:
    clients = Path(orlopd.address)
    return [
        clients,
        clients.with_name(f"{clients.name}.ttrpc"),
        *(orlopd.state / f"{name}.sock" for name in ("metrics", "status")),
    ]


def test_a_member_of_their_group_connects_and_no_other(of_group: Orlopd) -> None:
    for path in _sockets(of_group):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (os.geteuid(), _GID)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert _connects(path, _UID, _GID)
        assert not _connects(path, _UID, _UID)
    asked = _run(_CALL, of_group.address, _UID, _GID)
    assert asked.returncode == 0, asked.stderr


def test_their_user_connects_and_no_other(of_user: Orlopd) -> None:
    for path in _sockets(of_user):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (_UID, os.getegid())
        assert _connects(path, _UID, _UID)
        assert not _connects(path, _GID, _GID)


def _connects(path: Path, user: int, group: int) -> bool:
    """Whether a process of a user and a group may connect."""
    done = _run(_CONNECT, path, user, group)
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def _run(program: str, path: str | Path, user: int, group: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BECOME + program, path, str(user), str(group)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
