"""openat2: what happens elsewhere on the machine does not fail it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.sys.fs import open_in_root

_RENAMES = """
import os, sys
while True:
    os.rename(sys.argv[1], sys.argv[2])
    os.rename(sys.argv[2], sys.argv[1])
"""


@contextmanager
def renaming(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that renames a file as often as it can."""
    (folder / "a").touch()
    with subprocess.Popen([sys.executable, "-c", _RENAMES, folder / "a", folder / "b"]) as process:
        try:
            while not (folder / "b").exists():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def test_a_link_that_climbs_beside_renames(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "lib").mkdir()
    (tmp_path / "tree" / "deep" / "up").symlink_to("../lib")
    (tmp_path / "other").mkdir()
    root = os.open(tmp_path / "tree", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with renaming(tmp_path / "other") as process:
            for _ in range(20_000):
                os.close(open_in_root(root, "deep/up", os.O_PATH))
            assert process.poll() is None
    finally:
        os.close(root)
