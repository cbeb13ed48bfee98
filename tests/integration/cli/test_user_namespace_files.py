"""The files of containers with user namespaces: owners are what they are inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon_fixture import Orlopd

pytestmark = pytest.mark.root

SCRIPT = """
echo mine > /mine; echo theirs > /theirs; chown 1000:1001 /theirs; chmod 600 /etc/passwd
echo up; sleep 1000
"""
OWNERS = "0:0\n1000:1001\n0:0\n"


def test_commit_diff_and_cp(orlopd: Orlopd, busybox: str, tmp_path: Path) -> None:
    orlopd.folder.chmod(0o711)  # nobody has to get to the container's root by its path
    ids = ("--userns", "300000:65536")
    orlopd.orlop("run", "-d", "--name", "box", *ids, busybox, "sh", "-c", SCRIPT)
    orlopd.wait_for(lambda: orlopd.orlop("logs", "box").stdout == "up\n")
    lines = orlopd.orlop("diff", "box").stdout.splitlines()
    assert {"A /mine", "A /theirs", "C /etc/passwd"} <= set(lines)
    assert "C /bin" not in lines
    orlopd.orlop("commit", "box", "plain")
    stat = ("stat", "-c", "%u:%g", "/mine", "/theirs", "/etc/passwd")
    for options in ((), ids):
        assert orlopd.orlop("run", "--rm", *options, "plain", *stat).stdout == OWNERS
    (tmp_path / "here").write_text("here")
    os.chown(tmp_path / "here", 1000, 1001)
    for name in ("running", "stopped"):
        orlopd.orlop("cp", str(tmp_path / "here"), f"box:/root-{name}")
        orlopd.orlop("cp", "-a", str(tmp_path / "here"), f"box:/kept-{name}")
        orlopd.orlop("cp", "-a", "box:/theirs", str(tmp_path / name))
        assert (tmp_path / name).read_text() == "theirs\n"
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (1000, 1001)
        if name == "running":
            orlopd.orlop("stop", "-t", "0.1", "box")
    orlopd.orlop("start", "box")
    paths = [f"/{owner}-{name}" for owner in ("root", "kept") for name in ("running", "stopped")]
    shown = orlopd.orlop("exec", "box", "stat", "-c", "%u:%g", *paths)
    assert shown.stdout == "0:0\n0:0\n1000:1001\n1000:1001\n"
    orlopd.orlop("rm", "-f", "box")
