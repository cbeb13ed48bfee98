"""What becomes of tasks whose shim cannot be reached, with shims that are made up."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import Unavailable
from orlop.rpc.reactor import Reactor
from orlop.runtime import burial
from orlop.runtime.burial import Undertaker
from orlop.runtime.model import Exit
from tests.patience import patient

TASKS = 3


class Shims:
    """`connect` does what `behave` says."""

    def __init__(self, behave: Callable[[], Any]) -> None:
        self.on_death: list[Callable[[Any], None]] = []
        self.behave = behave
        self.calls = 0
        self.users = TASKS
        self._lock = threading.Lock()

    def connect(self, bundle: Any) -> Any:
        with self._lock:
            self.calls += 1
        shim = self.behave()
        with self._lock:
            self.users += 1
        return shim

    def forget(self, shim: Any) -> None:
        with self._lock:
            self.users -= 1

    def clean_up(self, bundle: Any) -> Exit:
        return Exit(137, 1, 7)


class Task:
    def __init__(self, number: int, shim: Any) -> None:
        self.namespace, self.id = "ns", f"c{number}"
        self.bundle = SimpleNamespace(namespace="ns", id=self.id)
        self.shim, self.pid, self.exit, self.recovered = shim, 7, None, False

    def tell_exit(self, ended: Exit) -> Exit:
        return self.exit or ended

    def reconnect(self, lost: Any, shim: Any) -> bool:
        if self.shim is not lost:
            return False
        self.shim = shim
        return True


class Register:
    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks
        self.removed: list[str] = []

    def of_shim(self, shim: Any) -> list[Task]:
        return [task for task in self.tasks if task.shim is shim]

    def take(self, task: Task) -> bool:
        if task not in self.tasks:
            return False
        self.tasks.remove(task)
        return True

    def remove(self, task: Task, ended: Exit) -> None:
        self.removed.append(task.id)


class Publisher:
    def __init__(self) -> None:
        self.topics: list[str] = []

    def publish(self, namespace: str, topic: str, event: Any, *, keep: bool = False) -> None:
        self.topics.append(topic)


def _shim(*, closed: bool = False) -> Any:
    shim = SimpleNamespace(closed=threading.Event())
    if closed:
        shim.closed.set()
    return shim


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reactor]:
    monkeypatch.setattr(burial, "RETRY", 0.05)
    made = Reactor()
    yield made
    made.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patient(20)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_cannot_be_looked_for_is_buried_later(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    """With one try for each at a time, and one line."""
    short = threading.Event()
    short.set()

    def behave() -> Any:
        if short.is_set():
            raise OSError(errno.EMFILE, "too many open files")
        raise Unavailable("nobody listens")

    lost, shims, publisher = _shim(closed=True), Shims(behave), Publisher()
    register = Register([Task(number, lost) for number in range(TASKS)])
    undertaker = Undertaker(shims, publisher, reactor, register)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        shims.on_death[0](lost)
        _until(lambda: shims.calls >= 5 * TASKS)
        calls, passed = shims.calls, time.monotonic() - began  # in this order
        assert calls <= TASKS * (passed / 0.05 + 2)
        assert register.removed == []
        short.clear()
        _until(lambda: len(register.removed) == TASKS)
    undertaker.close()
    assert sorted(publisher.topics) == ["/tasks/delete"] * TASKS + ["/tasks/exit"] * TASKS
    assert sum("shim is lost" in each.message for each in caplog.records) == TASKS
    assert shims.users == 0


def test_a_shim_that_breaks_off_every_connection_is_looked_for_in_peace(reactor: Reactor) -> None:
    lost, shims, publisher = _shim(closed=True), Shims(lambda: _shim(closed=True)), Publisher()
    register = Register([Task(0, lost)])
    undertaker = Undertaker(shims, publisher, reactor, register)  # type: ignore[arg-type]
    began = time.monotonic()
    shims.on_death[0](lost)
    _until(lambda: shims.calls >= 5)
    assert shims.calls <= (time.monotonic() - began) / 0.05 + 2
    shims.behave = _refuse
    _until(lambda: register.removed == ["c0"])
    undertaker.close()


def _refuse() -> Any:
    raise Unavailable("nobody listens")


def test_who_listens_is_reached_again(reactor: Reactor) -> None:
    lost, found, publisher = _shim(closed=True), _shim(), Publisher()
    shims = Shims(lambda: found)
    register = Register([Task(number, lost) for number in range(TASKS)])
    undertaker = Undertaker(shims, publisher, reactor, register)  # type: ignore[arg-type]
    for _ in range(4):  # told more than once
        undertaker.shim_died(lost)
    _until(lambda: len(register.of_shim(found)) == TASKS)
    undertaker.close()
    assert (register.removed, publisher.topics, shims.users) == ([], [], TASKS)
