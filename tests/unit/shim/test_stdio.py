"""Streams: what a hand may leave to the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orlop.shim.loop import Loop
from orlop.shim.rest import Busy, Luggage
from orlop.shim.stdio import StdinPump


def test_input_of_a_process_that_is_still_to_be_started_is_not_forgotten(tmp_path: Path) -> None:
    pump = StdinPump(Loop(lambda _: None), str(tmp_path / "stdin"))
    with pytest.raises(Busy):
        pump.freeze(Luggage())
