"""Whose a process is that a dead shim has left."""

from __future__ import annotations

import subprocess

from orlop.shim.cleanup import _belongs_to


def test_a_bundle_whose_path_begins_as_anothers() -> None:
    command = ["sh", "-c", "echo ready; read x", "sh", "--bundle", "/run/x/ab"]
    command += ["--pid-file", "/run/y/cd/init.pid"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = str(process.pid)
        for bundle in ("/run/x/ab", "/run/y/cd"):
            assert _belongs_to(pid, bundle)
        for bundle in ("/run/x/a", "/run/y/c", "/x/ab"):
            assert not _belongs_to(pid, bundle)
