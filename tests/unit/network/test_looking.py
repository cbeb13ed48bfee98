"""What the kernel lists, and what it may leave out."""

from __future__ import annotations

from typing import Any

from orlop.network.looking import every


def test_a_list_that_something_came_into_is_asked_for_again() -> None:
    whole, interrupted = {"header": {"flags": 2}}, {"header": {"flags": 0x12}}
    answers: list[list[Any]] = [[whole, interrupted], [interrupted], [whole] * 3]
    asked = []

    def ask(family: int) -> list[Any]:
        asked.append(family)
        return answers.pop(0)

    assert every(ask, family=10) == [whole] * 3
    assert asked == [10] * 3


def test_where_things_never_stop_what_was_last_told_is_taken() -> None:
    interrupted = {"header": {"flags": 0x10}}
    assert every(lambda: [interrupted]) == [interrupted]
