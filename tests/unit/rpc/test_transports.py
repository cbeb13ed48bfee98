"""Both transports, through one suite: a service of their own over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    Unknown,
)
from orlop.rpc import CallContext, Service, ServiceTable
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.rpc.ttrpc.reactor import Reactor
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.wire.services import content_pb2, version_pb2

CONTENT = content_pb2.DESCRIPTOR.services_by_name["Content"]


class Guinea(Service):
    """A content service that answers with what it was asked."""

    DESCRIPTOR = CONTENT

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.ended = threading.Event()

    def info(self, request: Any, ctx: CallContext) -> Any:
        info = content_pb2.Info(digest=request.digest, labels={"ns": ctx.namespace, "l": ctx.lease})
        return content_pb2.InfoResponse(info=info)

    def update(self, request: Any, ctx: CallContext) -> Any:
        raise RuntimeError("a defect")

    def list(self, request: Any, ctx: CallContext) -> Iterator[Any]:
        for number in range(3):
            yield content_pb2.ListContentResponse(info=[content_pb2.Info(size=number)])
        if request.filters:
            raise NotFound('filter "x"')

    def delete(self, request: Any, ctx: CallContext) -> Any:
        raise NotFound(f'content "{request.digest}"')

    def read(self, request: Any, ctx: CallContext) -> Iterator[Any]:
        yield content_pb2.ReadContentResponse(data=b"x" * request.size)

    def status(self, request: Any, ctx: CallContext) -> Any:
        ctx.on_cancel(self.ended.set)
        self.entered.set()
        assert self.ended.wait(20)
        ctx.check()
        return content_pb2.StatusResponse()

    def list_statuses(self, request: Any, ctx: CallContext) -> Any:
        return content_pb2.ListStatusesResponse()

    def write(self, requests: Iterator[Any], ctx: CallContext) -> Iterator[Any]:
        total = 0
        for request in requests:
            total += len(request.data)
            yield content_pb2.WriteContentResponse(offset=total)

    def abort(self, request: Any, ctx: CallContext) -> Any:
        ctx.require_namespace()


class Peer:
    """A server on one transport, and how to reach it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path, self.guinea = kind, path, Guinea()
        self.reactor = Reactor()
        table = ServiceTable(self.guinea)
        self.server: Any = GrpcServer(table) if kind == "grpc" else TtrpcServer(table, self.reactor)
        self.server.add_unix(path)
        self.server.start()
        self.channels: list[Any] = []

    def channel(self) -> Any:
        made: Any
        if self.kind == "grpc":
            made = GrpcChannel(str(self.path))
        elif self.kind == "ttrpc":
            made = TtrpcChannel.connect(str(self.path))
        else:
            made = TtrpcChannel.connect(str(self.path), self.reactor)
        self.channels.append(made)
        return made

    def client(self, **kwargs: str) -> Any:
        return Client(CONTENT, self.channel(), **kwargs)

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.guinea.ended.set()
        self.server.stop()
        self.reactor.close()


@pytest.fixture(params=["grpc", "ttrpc", "ttrpc-reactor"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    found = Peer(request.param, tmp_path / "s.sock")
    yield found
    found.close()


def test_unary_carries_namespace_and_lease(peer: Peer) -> None:
    client = peer.client(namespace="ns", lease="held")
    info = client.info(content_pb2.InfoRequest(digest="d")).info
    assert info.digest == "d"
    assert dict(info.labels) == {"ns": "ns", "l": "held"}


def test_the_socket_is_private(peer: Peer) -> None:
    assert peer.path.stat().st_mode & 0o777 == 0o600


def test_errors_have_class_and_text(peer: Peer) -> None:
    client = peer.client()
    with pytest.raises(NotFound) as caught:
        client.delete(content_pb2.DeleteContentRequest(digest="d"))
    assert str(caught.value) == 'content "d": not found'
    with pytest.raises(Unknown, match="a defect"):
        client.update(content_pb2.UpdateRequest())
    with pytest.raises(FailedPrecondition, match="namespace is required"):
        client.abort(content_pb2.AbortRequest())


def test_unknown_service(peer: Peer) -> None:
    version = version_pb2.DESCRIPTOR.services_by_name["Version"]
    from google.protobuf.empty_pb2 import Empty

    with pytest.raises(Unimplemented):
        Client(version, peer.channel()).version(Empty())


def test_server_streaming(peer: Peer) -> None:
    client = peer.client()
    sizes = [r.info[0].size for r in client.list(content_pb2.ListContentRequest())]
    assert sizes == [0, 1, 2]
    got = []
    with pytest.raises(NotFound, match="filter"):
        for item in client.list(content_pb2.ListContentRequest(filters=["x"])):
            got.append(item)
    assert len(got) == 3


def test_both_sides_stream(peer: Peer) -> None:
    data = [content_pb2.WriteContentRequest(data=b"x" * 100_000) for _ in range(200)]
    offsets = [r.offset for r in peer.client().write(iter(data))]
    assert offsets == [100_000 * n for n in range(1, 201)]


def test_large_messages(peer: Peer) -> None:
    limit = (16 << 20) if peer.kind == "grpc" else (4 << 20)
    client = peer.client()
    (answer,) = client.read(content_pb2.ReadContentRequest(size=limit - 1000))
    assert len(answer.data) == limit - 1000
    with pytest.raises(ResourceExhausted):
        list(client.read(content_pb2.ReadContentRequest(size=limit + 1)))
    # The connection goes on.
    assert client.info(content_pb2.InfoRequest(digest="d")).info.digest == "d"


def test_deadline(peer: Peer) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        peer.client().status(content_pb2.StatusRequest(), timeout=0.2)
    assert time.monotonic() - started < 5


def test_a_client_that_goes_away_ends_its_call(peer: Peer) -> None:
    channel = peer.channel()
    client = Client(CONTENT, channel)

    def ask() -> None:
        with pytest.raises(Exception):  # noqa: B017 - whatever the transport says
            client.status(content_pb2.StatusRequest())

    thread = threading.Thread(target=ask)
    thread.start()
    assert peer.guinea.entered.wait(5)
    channel.close()
    assert peer.guinea.ended.wait(5)
    thread.join(5)


def test_stop_ends_blocked_calls(peer: Peer) -> None:
    client = peer.client()
    errors = []

    def ask() -> None:
        try:
            client.status(content_pb2.StatusRequest())
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert peer.guinea.entered.wait(5)
    peer.server.stop()
    thread.join(5)
    assert len(errors) == 1


def test_many_threads_on_one_channel(peer: Peer) -> None:
    client = peer.client()
    right = []

    def work(name: str) -> None:
        for number in range(50):
            digest = f"{name}-{number}"
            if client.info(content_pb2.InfoRequest(digest=digest)).info.digest == digest:
                right.append(digest)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 400


def test_a_second_server_on_the_same_path_is_refused(peer: Peer) -> None:
    with pytest.raises(FailedPrecondition, match="in use"):
        peer.server.add_unix(peer.path)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    peer = Peer("ttrpc", path)
    try:
        assert peer.client().info(content_pb2.InfoRequest(digest="d")).info.digest == "d"
    finally:
        peer.close()


def test_lost_connection_fails_pending_calls(tmp_path: Path) -> None:
    peer = Peer("ttrpc", tmp_path / "s.sock")
    closed = threading.Event()
    channel = TtrpcChannel.connect(str(peer.path), peer.reactor, closed.set)
    client = Client(CONTENT, channel)
    try:
        peer.server.stop()
        assert closed.wait(5)
        with pytest.raises(Unavailable):
            client.info(content_pb2.InfoRequest(digest="d"))
    finally:
        peer.close()
