"""Marks: who a process is, and what is no answer to that."""

from __future__ import annotations

import os
import subprocess
import sys

from orlop.sys.process import is_alive, mark

_SCARCE = """
import os, resource
from orlop.sys.process import is_alive, mark
own = mark(os.getpid())
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    print(is_alive(own))
except OSError as error:
    print(error.strerror)
"""


def test_one_that_has_ended_has_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        marked = mark(process.pid)
        assert is_alive(marked)
        process.kill()
        process.wait()
        assert not is_alive(marked)
        assert mark(process.pid) != marked


def test_want_of_descriptors_is_no_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCARCE], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{os.strerror(24)}\n"
