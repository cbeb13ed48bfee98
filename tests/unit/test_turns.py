"""Turns: one at a time for a container, and one for all that is not kept waiting for ever."""

from __future__ import annotations

import threading
import time

from orlop.turns import Turns
from tests.patience import patient


def test_who_comes_after_one_for_all_waits_for_it() -> None:
    turns, order = Turns(), list[str]()

    def take(name: str, container: str | None) -> None:
        with turns.take(container):
            order.append(name)

    with turns.take("a"):
        everything = threading.Thread(target=take, args=("all", None))
        everything.start()
        end = time.monotonic() + patient(10)
        while not turns._want_all and time.monotonic() < end:
            time.sleep(0.01)
        later = threading.Thread(target=take, args=("later", "b"))
        later.start()
        later.join(0.1)
        assert order == []
    everything.join()
    later.join()
    assert order == ["all", "later"]
