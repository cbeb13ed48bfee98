"""Cgroup moves made quick ahead of time."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from orlop.runtime.moves import CgroupMoves, own_procs


def _await(procs: Path) -> None:
    end = time.monotonic() + 10
    while procs.read_bytes() != b"0":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_move_that_changes_nothing_goes_before(tmp_path: Path) -> None:
    """And again when others are expected; one that fails is not the last."""
    places = [tmp_path / "first", tmp_path / "gone" / "second", tmp_path / "third"]
    for each in (places[0], places[2]):
        each.touch()
    asked = threading.Semaphore(0)
    left = iter(places)

    def find() -> Path:
        asked.release()
        return next(left)

    with closing(CgroupMoves(find)) as moves:
        for each in places:
            moves.expect()
            assert asked.acquire(timeout=10)
            if each.exists():
                _await(each)


def test_where_nothing_may_be_moved() -> None:
    moves = CgroupMoves(lambda: None)
    moves.expect()
    moves.close()
    assert not any(each.name == "cgroup-moves" for each in threading.enumerate())


@pytest.mark.skipif(not os.path.ismount("/sys/fs/cgroup"), reason="needs cgroups")
def test_the_own_cgroup() -> None:
    procs = own_procs()
    assert procs is not None
    assert str(os.getpid()) in procs.read_text().split()
