from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from orlop.errors import Unavailable
from orlop.events import Exchange, Listener, decoded
from orlop.events import listener as module
from orlop.wire.events_pb2 import TaskOOM
from orlop.wire.types_pb2 import Envelope
from tests.patience import wait_for


class Heard:
    """What a listener was told, which fails where it is told to."""

    def __init__(self, fails: Callable[[str], Exception | None] = lambda _: None) -> None:
        self.names: list[str] = []
        self._fails = fails

    def __call__(self, envelope: Envelope) -> None:
        event = decoded(envelope, TaskOOM)
        assert event is not None
        self.names.append(event.container_id)
        error = self._fails(event.container_id)
        if error is not None:
            raise error


def publish(exchange: Exchange, *names: str, topic: str = "/tasks/oom") -> None:
    for name in names:
        exchange.publish("default", topic, TaskOOM(container_id=name))


def test_what_comes_before_the_start_is_heard_after_it() -> None:
    exchange, heard, order = Exchange(), Heard(), []
    listener = Listener(exchange, "test", ["/tasks/oom"], heard)
    publish(exchange, "early")
    publish(exchange, "strange", topic="/tasks/paused")
    listener.start(lambda: order.append(list(heard.names)))
    publish(exchange, "late")
    wait_for(lambda: heard.names == ["early", "late"])
    assert order == [[]]  # the first thing comes first
    listener.close()
    assert exchange.backlogs() == []


def test_no_error_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    errors = {"a": Unavailable("the disk"), "b": KeyError("bug")}
    exchange, heard = Exchange(), Heard(errors.get)
    listener = Listener(exchange, "test", ["/tasks/oom"], heard)
    listener.start()
    publish(exchange, "a", "b", "c")
    wait_for(lambda: heard.names == ["a", "b", "c"])
    listener.close()
    expected, bug = caplog.records
    assert "namespace=default topic=/tasks/oom test: the disk" in expected.getMessage()
    assert expected.exc_info is None
    assert bug.exc_info is not None


def test_who_falls_behind_looks_around_until_that_succeeds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    exchange = Exchange(capacity=2)
    looks: list[int] = []
    held = threading.Event()

    def look() -> None:
        looks.append(1)
        if len(looks) < 3:
            raise Unavailable("the disk")

    def wait(_: Envelope) -> None:
        assert held.wait(30)

    listener = Listener(exchange, "test", ["/tasks/oom"], wait, look)
    listener.start()
    publish(exchange, "taken")
    wait_for(lambda: exchange.backlogs() == [0])
    publish(exchange, "kept", "kept", "lost")
    held.set()
    wait_for(lambda: len(looks) == 3)
    heard = Heard()
    listener._heard = heard
    publish(exchange, "later")
    wait_for(lambda: heard.names == ["later"])
    listener.close()
    assert len(looks) == 3
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert told == ["test: the disk: unavailable"]  # once


def test_rounds() -> None:
    exchange, heard, rounds = Exchange(), Heard(), []

    def look() -> None:
        rounds.append(1)
        raise KeyError("bug")

    listener = Listener(exchange, "test", ["/tasks/oom"], heard, rounds=look, interval=0.01)
    listener.start()
    wait_for(lambda: len(rounds) > 3)
    publish(exchange, "a")
    wait_for(lambda: heard.names == ["a"])
    listener.close()


def test_one_that_was_never_started_can_be_closed() -> None:
    exchange = Exchange()
    Listener(exchange, "test", ["/tasks/oom"], Heard()).close()
    assert exchange.backlogs() == []
