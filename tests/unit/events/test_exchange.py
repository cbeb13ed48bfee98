from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from orlop.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from orlop.events import Exchange
from orlop.events.service import EventsService, TtrpcEventsService
from orlop.rpc import CallContext
from orlop.rpc.convert import pack, timestamp
from orlop.wire.events_pb2 import ContainerCreate, ContainerUpdate, TaskCreate, TaskExit, TaskOOM
from orlop.wire.services import events_pb2, events_ttrpc_pb2
from orlop.wire.services.images_pb2 import ImageCreate
from orlop.wire.types_pb2 import Envelope


def envelope(topic: str, message: Message, namespace: str = "default") -> Envelope:
    return Envelope(
        timestamp=timestamp(1_000_000_007), namespace=namespace, topic=topic, event=pack(message)
    )


def wanted(filters: list[str], *events: Envelope) -> list[int]:
    """The places in `events` of those that a subscriber with these filters gets."""
    exchange = Exchange()
    with exchange.subscribe(filters) as subscription:
        for event in events:
            exchange.forward(event)
        return [events.index(event) for event in list(subscription._buffer)]


def test_publish_stamps_and_packs_with_the_bare_type_name() -> None:
    exchange = Exchange()
    with exchange.subscribe() as subscription:
        exchange.publish("default", "/tasks/oom", TaskOOM(container_id="a"))
        got = next(subscription)
    assert (got.namespace, got.topic) == ("default", "/tasks/oom")
    assert got.event.type_url == "containerd.events.TaskOOM"
    assert TaskOOM.FromString(got.event.value).container_id == "a"
    assert got.timestamp.seconds > 1_600_000_000


def test_forward_keeps_time_and_bytes() -> None:
    exchange = Exchange()
    sent = envelope("/x/y", TaskOOM())
    sent.event.CopyFrom(Any(type_url="prefix/of.unknown.Type", value=b"\xff\x00"))
    with exchange.subscribe() as subscription:
        exchange.forward(sent)
        assert next(subscription) == sent


@pytest.mark.parametrize(
    "bad",
    [
        Envelope(namespace="default", topic="/a", event=pack(TaskOOM())),
        Envelope(namespace="default", topic="/a", timestamp=timestamp(0)),
        Envelope(namespace="", topic="/a", timestamp=timestamp(1)),
        Envelope(namespace="a/b", topic="/a", timestamp=timestamp(1)),
        Envelope(namespace="default", topic="", timestamp=timestamp(1)),
        Envelope(namespace="default", topic="/", timestamp=timestamp(1)),
        Envelope(namespace="default", topic="a", timestamp=timestamp(1)),
        Envelope(namespace="default", topic="/a//b", timestamp=timestamp(1)),
        Envelope(namespace="default", topic="/a/b c", timestamp=timestamp(1)),
    ],
)
def test_bad_envelopes_are_refused(bad: Envelope) -> None:
    exchange = Exchange()
    with exchange.subscribe() as subscription:
        with pytest.raises(InvalidArgument):
            exchange.forward(bad)
        assert not subscription._buffer


def test_filters_on_namespace_topic_and_event_fields() -> None:
    events = (
        envelope("/tasks/oom", TaskOOM(container_id="a"), "moby"),
        envelope("/tasks/exit", TaskExit(container_id="b", id="x", exit_status=3)),
        envelope("/containers/update", ContainerUpdate(id="c", labels={"a.b/c": "d"})),
        envelope(
            "/containers/create",
            ContainerCreate(id="e", runtime=ContainerCreate.Runtime(name="io.runtime")),
        ),
        envelope("/images/create", ImageCreate(name="docker.io/library/busybox:latest")),
        envelope("/tasks/create", TaskCreate(container_id="f", io={"terminal": True})),
    )
    assert wanted([], *events) == [0, 1, 2, 3, 4, 5]
    assert wanted(["namespace==moby"], *events) == [0]
    assert wanted(["namespace==moby,topic~=|^/tasks/|"], *events) == [0]
    assert wanted(['topic=="/tasks/oom"', "topic~=/^\\/images\\//"], *events) == [0, 4]
    assert wanted(["event.container_id==b"], *events) == [1]
    assert wanted(["event.exit_status==3"], *events) == [1]
    assert wanted(['event.labels."a.b/c"==d'], *events) == [2]
    assert wanted(["event.labels"], *events) == []
    assert wanted(["event.runtime.name~=^io"], *events) == [3]
    assert wanted(["event.name~=busybox"], *events) == [4]
    assert wanted(["event.io.terminal==true"], *events) == [5]
    assert (
        wanted(["event.runtime", "event", "event.nope", "timestamp", "event.rootfs"], *events) == []
    )


def test_unknown_or_broken_events_have_no_fields() -> None:
    unknown = envelope("/a", TaskOOM(container_id="a"))
    unknown.event.type_url = "some.other.Type"
    broken = envelope("/b", TaskOOM(container_id="a"))
    broken.event.value = b"\xff"
    assert wanted(["event.container_id"], unknown, broken) == []
    assert wanted(["event.container_id!=z"], unknown, broken) == [0, 1]


def test_a_prefix_on_the_type_url_does_not_hide_the_fields() -> None:
    prefixed = envelope("/a", TaskOOM(container_id="a"))
    prefixed.event.type_url = "types.containerd.io/containerd.events.TaskOOM"
    assert wanted(["event.container_id==a"], prefixed) == [0]


def test_bad_filter_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Exchange().subscribe(["topic=="])


def test_a_slow_subscriber_is_ended_and_others_are_not() -> None:
    exchange = Exchange(capacity=3)
    with exchange.subscribe() as slow, exchange.subscribe(["topic==never"]) as other:
        for number in range(5):
            exchange.publish("default", f"/n/{number}", TaskOOM())
        assert [next(slow).topic for _ in range(3)] == ["/n/0", "/n/1", "/n/2"]
        with pytest.raises(ResourceExhausted):
            next(slow)
        with pytest.raises(StopIteration):
            next(slow)
        assert exchange._subscriptions == (other,)


def test_close_wakes_a_waiting_reader() -> None:
    exchange = Exchange()
    subscription = exchange.subscribe()
    got: list[Envelope] = []
    reader = threading.Thread(target=lambda: got.extend(subscription))
    reader.start()
    subscription.close()
    reader.join(5)
    assert not reader.is_alive()
    assert got == []
    assert exchange._subscriptions == ()


def test_each_publishers_order_is_kept() -> None:
    exchange = Exchange()
    rounds = 500

    def publish(name: str) -> None:
        for number in range(rounds):
            exchange.publish(name, f"/n/{number}", TaskOOM())

    with exchange.subscribe() as subscription:
        threads = [threading.Thread(target=publish, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        got = list(islice(subscription, 2 * rounds))
        for thread in threads:
            thread.join()
    for name in ("a", "b"):
        topics = [e.topic for e in got if e.namespace == name]
        assert topics == [f"/n/{number}" for number in range(rounds)]


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    yield exchange
    assert exchange._subscriptions == ()


def test_service_subscribes_before_it_answers_and_ends_with_the_call(exchange: Exchange) -> None:
    service = EventsService(exchange)
    ctx = CallContext(namespace="default")
    stream = service.subscribe(events_pb2.SubscribeRequest(), ctx)
    event = pack(TaskOOM(container_id="a"))
    service.publish(events_pb2.PublishRequest(topic="/tasks/oom", event=event), ctx)
    assert next(stream).event == event
    TtrpcEventsService(exchange).forward(
        events_ttrpc_pb2.ForwardRequest(envelope=envelope("/tasks/exit", TaskExit())), ctx
    )
    service.forward(
        events_pb2.ForwardRequest(envelope=envelope("/tasks/exit", TaskExit(), "other")), ctx
    )
    assert [next(stream).namespace for _ in range(2)] == ["default", "other"]
    ctx.cancel()
    assert list(stream) == []


def test_service_publish_needs_a_namespace(exchange: Exchange) -> None:
    with pytest.raises(FailedPrecondition):
        EventsService(exchange).publish(events_pb2.PublishRequest(topic="/a"), CallContext())


def test_who_comes_late_gets_what_is_kept() -> None:
    """Those who followed an earlier daemon need a moment to find this one."""
    exchange = Exchange()
    first = envelope("/tasks/exit", TaskExit(container_id="a"))
    exchange.forward(first, keep=True)
    exchange.forward(envelope("/tasks/exit", TaskExit(container_id="b")))
    exchange.publish("other", "/tasks/oom", TaskOOM(), keep=True)
    with exchange.subscribe(topics=frozenset({"/tasks/oom", "/tasks/start"})) as chosen:
        assert [each.topic for each in chosen._buffer] == ["/tasks/oom"]
    with exchange.subscribe(["namespace==default"]) as late, exchange.subscribe() as later:
        assert list(late._buffer) == [first]
        assert [each.topic for each in later._buffer] == ["/tasks/exit", "/tasks/oom"]
        exchange.forward(first, keep=True)
        assert len(late._buffer) == 2


def test_after_a_while_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orlop.events.exchange.LATECOMERS", 0.0)
    exchange = Exchange()
    exchange.forward(envelope("/tasks/exit", TaskExit()), keep=True)
    with exchange.subscribe() as late:
        assert not late._buffer
