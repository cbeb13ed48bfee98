"""Cgroup moves made quick ahead of time."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path

from orlop.runtime.moves import CgroupMoves, own_procs


def test_a_move_that_changes_nothing_goes_before(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    with closing(CgroupMoves(procs)) as moves:
        assert procs.read_bytes() == b""
        for _ in range(2):
            moves.expect()
            while procs.read_bytes() != b"0":
                time.sleep(0.01)
            procs.write_bytes(b"")


def test_where_nothing_may_be_moved(tmp_path: Path) -> None:
    for procs in (None, tmp_path / "gone" / "cgroup.procs"):
        moves = CgroupMoves(procs)
        moves.expect()
        moves.close()
    assert not any(each.name == "cgroup-moves" for each in threading.enumerate())


def test_the_own_cgroup() -> None:
    procs = own_procs()
    if procs is not None:
        assert str(os.getpid()) in procs.read_text().split()
