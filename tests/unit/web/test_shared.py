from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orlop.web.shared import Shared


def test_who_comes_meanwhile_shares_the_next() -> None:
    made: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def make() -> bytes:
        made.append(len(made) + 1)
        begun.set()
        assert go.wait(20)
        return str(made[-1]).encode()

    shared = Shared(make)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.get)
        assert begun.wait(20)
        others = [pool.submit(shared.get) for _ in range(6)]
        time.sleep(0.1)  # they come while the first is made; coming later does no harm
        go.set()
        assert first.result(20) == b"1"
        assert {each.result(20) for each in others} == {b"2"} or len(made) > 2
    assert shared.get() == str(len(made)).encode()


def test_what_is_fresh_is_given_again() -> None:
    numbers = itertools.count()
    shared = Shared(lambda: bytes([next(numbers)]), fresh=3600)
    assert shared.get() == shared.get() == b"\0"
    stale = Shared(lambda: bytes([next(numbers)]), fresh=1e-9)
    assert stale.get() != stale.get()


def test_a_failure_is_told_and_does_not_stay() -> None:
    tries = itertools.count()

    def make() -> bytes:
        if next(tries) == 0:
            raise ValueError("once")
        return b"then"

    shared = Shared(make, fresh=3600)
    with pytest.raises(ValueError, match="once"):
        shared.get()
    assert shared.get() == b"then"
