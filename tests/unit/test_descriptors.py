"""Descriptors 0 to 2 that whoever starts a program has closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs a program with the arguments that follow, then writes down what its descriptors are.
_RUN = """
import importlib, os, sys
main = importlib.import_module(sys.argv.pop(1)).main
into = sys.argv.pop(1)
try:
    main()
except SystemExit:
    pass
with open(into, "w") as file:
    for fd in range(3):
        print(os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd), file=file)
"""
_PROGRAMS = [
    ("orlop.cli.main", "--help"),
    ("orlop.daemon.main", "--version"),
    ("orlop.cni.main",),
    ("orlop.logger.main",),
    ("orlop.shim.binary", "-v"),
]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program[0])
def test_nothing_else_becomes_one_of_them(
    tmp_path: Path, program: tuple[str, ...], closed: str
) -> None:
    module, *arguments = program
    told = tmp_path / "told"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh",
         sys.executable, "-c", _RUN, module, told, *arguments],
        stdin=subprocess.PIPE,
        capture_output=True,
        env={**os.environ, "CNI_COMMAND": "VERSION"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    signs = ["<&-", ">&-", "2>&-"]
    for sign, line in zip(signs, told.read_text().splitlines(), strict=True):
        assert line.startswith("/dev/null" if sign in closed.split() else "pipe:"), line
        assert line.endswith(" True"), line
