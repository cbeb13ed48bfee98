"""Cgroup moves made quick ahead of time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orlop.runtime.moves import CgroupMoves, own_procs
from tests.patience import patient


def _expected(moves: CgroupMoves, seen: Callable[[], bool]) -> None:
    """Moves, until what was made ready is seen: a thread that wakes up late has nothing to do."""
    end = time.monotonic() + patient(20)
    while not seen():
        assert time.monotonic() < end
        moves.expect()
        time.sleep(0.05)  # longer than it keeps them quick: then it looks for the place anew


def test_a_move_that_changes_nothing_goes_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And again when others are expected; one that fails is not the last."""
    caplog.set_level(logging.INFO)
    place = tmp_path / "first"
    place.touch()
    with closing(CgroupMoves(lambda: place)) as moves:
        _expected(moves, lambda: place.read_bytes() == b"0")
        place = tmp_path / "gone" / "second"
        _expected(moves, lambda: "are not prepared" in caplog.text)
        place = tmp_path / "third"
        place.touch()
        _expected(moves, lambda: place.read_bytes() == b"0")


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
