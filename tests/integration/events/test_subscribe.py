"""Subscriptions over real transports: live at once, gone with their client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import InvalidArgument
from orlop.events import Exchange
from orlop.events.service import EventsService
from orlop.rpc import ServiceTable
from orlop.rpc.client import Client
from orlop.rpc.convert import pack
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.wire.events_pb2 import TaskOOM
from orlop.wire.services import events_pb2


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def server(exchange: Exchange, tmp_path: Path) -> Iterator[GrpcServer]:
    reactor = Reactor()
    server = GrpcServer(ServiceTable(EventsService(exchange)), reactor)
    server.add_unix(tmp_path / "s")
    server.start()
    yield server
    server.stop()
    reactor.close()


@pytest.fixture
def client(server: GrpcServer, tmp_path: Path) -> Iterator[Client]:
    channel = GrpcChannel(str(tmp_path / "s"))
    yield Client(EventsService.DESCRIPTOR, channel, namespace="default")
    channel.close()


def until_subscribed(exchange: Exchange, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(exchange._subscriptions) != count:
        assert time.monotonic() < deadline, f"{len(exchange._subscriptions)} subscriptions"
        time.sleep(0.01)


def test_publish_and_subscribe(client: Client, exchange: Exchange) -> None:
    events = client.subscribe(events_pb2.SubscribeRequest(filters=["event.container_id==a"]))
    until_subscribed(exchange, 1)
    for name in ("b", "a"):
        event = pack(TaskOOM(container_id=name))
        client.publish(events_pb2.PublishRequest(topic="/tasks/oom", event=event))
    got = next(events)
    assert (got.namespace, got.topic) == ("default", "/tasks/oom")
    assert TaskOOM.FromString(got.event.value).container_id == "a"
    events.close()
    until_subscribed(exchange, 0)


def test_a_bad_filter_is_told(client: Client, exchange: Exchange) -> None:
    with pytest.raises(InvalidArgument, match="position 8"):
        next(client.subscribe(events_pb2.SubscribeRequest(filters=["topic=="])))
    assert exchange._subscriptions == ()


def test_the_server_stops_with_subscribers_and_they_end_quietly(
    client: Client, exchange: Exchange, server: GrpcServer
) -> None:
    events = client.subscribe(events_pb2.SubscribeRequest())
    ended = threading.Event()

    def read() -> None:
        if list(events) == []:
            ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    until_subscribed(exchange, 1)
    server.stop()
    reader.join(10)
    assert ended.is_set()
    until_subscribed(exchange, 0)
