from __future__ import annotations

import threading
import time

from orlop.restart.agenda import Agenda

KEY = ("default", "one")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _delay(agenda: Agenda, clock: Clock) -> float:
    """How long the agenda makes a container wait."""
    agenda.ended(KEY)
    began = clock.now
    while not agenda.take(clock.now):
        clock.now += 0.05
    return clock.now - began


def test_exits_that_come_too_early_wait_ever_longer() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    delays = []
    for _ in range(12):
        delays.append(round(_delay(agenda, clock), 1))
        agenda.starts(KEY)
        clock.now += 1
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    clock.now += 10
    assert round(_delay(agenda, clock), 1) == 0.1


def test_who_is_started_by_hand_waits_no_longer_than_at_first() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    for _ in range(5):
        _delay(agenda, clock)
    agenda.ended(KEY, afresh=True)
    clock.now += 0.11
    assert agenda.take(clock.now) == [KEY]


def test_one_that_is_forgotten_is_not_looked_at() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    agenda.ended(KEY)
    assert agenda.waits(KEY)
    agenda.forget(KEY)
    clock.now += 100
    assert agenda.take(clock.now) == []


def test_close_wakes_who_waits() -> None:
    agenda = Agenda()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(agenda.take(time.monotonic() + 60)))
    thread.start()
    agenda.close()
    thread.join(5)
    assert taken == [[]]


def test_a_start_that_fails_late_is_no_time_of_running() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    delays = []
    for _ in range(3):
        agenda.starts(KEY)
        clock.now += 60
        agenda.failed(KEY)
        delays.append(round(_delay(agenda, clock), 1))
    assert delays == [0.1, 0.2, 0.4]


def test_who_is_found_running_has_been_steady() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    for _ in range(3):
        _delay(agenda, clock)
    agenda.runs(KEY)
    clock.now += 6
    agenda.runs(KEY)
    clock.now += 6
    assert round(_delay(agenda, clock), 1) == 0.1


def test_to_look_again_is_no_failure() -> None:
    clock = Clock()
    agenda = Agenda(clock)
    agenda.starts(KEY)
    for _ in range(5):
        agenda.later(KEY)
        assert agenda.waits(KEY)
        clock.now += 1.05
        assert agenda.take(clock.now) == [KEY]
    clock.now += 10
    assert round(_delay(agenda, clock), 1) == 0.1
