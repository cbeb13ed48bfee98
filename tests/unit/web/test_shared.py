from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

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
    shared._lock = entries = _CountingLock()  # type: ignore[assignment]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.get)
        assert begun.wait(20)
        before = entries.count
        others = [pool.submit(shared.get) for _ in range(6)]
        while entries.count < before + 6:  # until all have joined the next turn
            time.sleep(0.01)
        go.set()
        assert first.result(20) == b"1"
        assert {each.result(20) for each in others} == {b"2"}
    assert len(made) == 2
    assert shared.get() == b"3"


class _CountingLock:
    """Counts how often it has been let go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.count += 1
        self._lock.release()


def test_so_often_at_most_whoever_asks() -> None:
    made: list[float] = []

    def make() -> bytes:
        time.sleep(0.05)
        made.append(time.monotonic())
        return b""

    def ask() -> None:
        while len(made) < 4:
            shared.get()
            time.sleep(0.001)

    shared = Shared(make, fresh=0.2)
    with ThreadPoolExecutor(8) as pool:
        for asking in [pool.submit(ask) for _ in range(8)]:
            asking.result()
    assert min(after - before for before, after in pairwise(made)) >= 0.2


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
