from __future__ import annotations

import threading

import pytest

from orlop.errors import ResourceExhausted
from orlop.events import Exchange
from orlop.status.events import batches
from orlop.status.model import Event, Skipped
from orlop.wire import events_pb2


def _publish(exchange: Exchange, count: int) -> None:
    for number in range(count):
        event = events_pb2.TaskExit(container_id=f"c{number}", id=f"c{number}", exit_status=number)
        exchange.publish("ns", "/tasks/exit", event)


def test_what_happens_is_told_in_batches() -> None:
    exchange = Exchange()
    with exchange.subscribe() as subscription:
        following = batches(subscription, 0.01)
        assert next(following) == []
        _publish(exchange, 2)
        one, two = next(following)
        assert isinstance(one, Event)
        assert (one.namespace, one.topic, one.subject, one.status) == ("ns", "/tasks/exit", "c0", 0)
        assert isinstance(two, Event)
        assert two.status == 1
        _publish(exchange, 1000)
        skipped, *kept = next(following)
        assert skipped == Skipped(900)
        assert len(kept) == 100
        assert isinstance(kept[-1], Event)
        assert kept[-1].subject == "c999"


def test_an_end_is_an_end() -> None:
    exchange = Exchange()
    subscription = exchange.subscribe()
    ended = threading.Timer(0.1, subscription.close)
    ended.start()
    assert list(batches(subscription, 30)) == []
    ended.join()
    slow = Exchange(capacity=3)
    following = batches(slow.subscribe(), 0.01)
    _publish(slow, 5)
    assert len(next(following)) == 3
    with pytest.raises(ResourceExhausted):
        next(following)


def test_events_of_unknown_kinds_are_told_as_well() -> None:
    exchange = Exchange()
    with exchange.subscribe() as subscription:
        exchange.publish("ns", "/strange/thing", events_pb2.SnapshotPrepare(key="k"))
        exchange.publish("ns", "/other/thing", events_pb2.TaskOOM(container_id="c"))
        first, second = next(batches(subscription, 0.01))
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert (first.subject, second.subject, second.status) == ("k", "c", None)
