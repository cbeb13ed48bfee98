from __future__ import annotations

import threading
import time

import pytest

from orlop.tally import MOST, OTHER, SECONDS, Counter, Timing, Together


def test_sums_by_labels() -> None:
    counter = Counter("host", "code")
    counter.add("a", "200")
    counter.add("a", "200", by=2)
    counter.add("b", "404")
    assert counter.read() == {("a", "200"): 3, ("b", "404"): 1}
    assert Counter().read() == {(): 0}


def test_what_comes_after_too_many_is_counted_together() -> None:
    counter, timing = Counter("name"), Timing("name")
    for number in range(10_000):
        counter.add(str(number))
        timing.observe(0.5, str(number))
    assert len(counter.read()) == len(timing.read()) == MOST + 1
    assert counter.read()[OTHER,] == 10_000 - MOST
    assert sum(timing.read()[OTHER,].counts) == 10_000 - MOST


def test_times_go_into_buckets() -> None:
    timing = Timing(bounds=(0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        timing.observe(seconds, trace="t" if seconds == 0.5 else "")
    found = timing.read()[()]
    assert found.counts == [2, 1, 1]
    assert found.sum == pytest.approx(7.65)
    assert [found.exemplars[1].trace, found.exemplars[1].value] == ["t", 0.5]
    with pytest.raises(KeyError), timing.timed():
        raise KeyError
    assert sum(timing.read()[()].counts) == 5


def test_threads_lose_nothing() -> None:
    counter, timing = Counter("x"), Timing("x")

    def count() -> None:
        for _ in range(5000):
            counter.add("y")
            timing.observe(0.01, "y")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert counter.read()["y",] == sum(timing.read()["y",].counts) == 20_000


def test_counting_costs_next_to_nothing() -> None:
    counter, timing = Counter("x"), Timing("x")
    best = 1.0
    for _ in range(20):
        began = time.thread_time()
        for _ in range(500):
            counter.add("y")
            timing.observe(0.01, "y")
        best = min(best, (time.thread_time() - began) / 500)
    assert best < 20e-6  # 1.5 on a machine that does nothing else


def test_several_that_count_the_same_are_told_apart() -> None:
    one, two = Timing("operation"), Timing("operation")
    one.observe(1, "commit")
    two.observe(2, "commit")
    two.observe(3, "remove")
    both = Together("store", {"one": one, "two": two})
    assert both.labels == ("store", "operation")
    assert both.bounds == SECONDS
    sums = {values: found.sum for values, found in both.read().items()}
    assert sums == {("one", "commit"): 1, ("two", "commit"): 2, ("two", "remove"): 3}
