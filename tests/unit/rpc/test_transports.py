"""Both transports, through one suite: a service of their own over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue

from orlop.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    OrlopError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    Unknown,
)
from orlop.rpc import CallContext, Service, ServiceTable
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.wire.services import content_pb2, version_pb2
from tests.patience import patient
from tests.unit.rpc.guinea import CONTENT, Peer


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
    assert time.monotonic() - started < patient(5)


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


def test_no_deadline_is_none_and_one_is_told(peer: Peer) -> None:
    client = peer.client()
    client.info(content_pb2.InfoRequest())
    client.info(content_pb2.InfoRequest(), timeout=60)
    without, given = peer.guinea.remaining
    assert without is None
    assert given is not None
    assert 40 < given < 61


def test_a_deadline_ends_the_call_at_the_server_too(peer: Peer) -> None:
    client = peer.client()
    client.info(content_pb2.InfoRequest())  # it is connected
    for seconds in (0.2, 2, 10):  # a call that comes too late is not begun, nor ended
        with pytest.raises(DeadlineExceeded):
            client.status(content_pb2.StatusRequest(), timeout=seconds)
        if peer.guinea.ended.wait(5):
            break
    assert peer.guinea.ended.is_set()
    # The connection goes on.
    assert client.info(content_pb2.InfoRequest(digest="d")).info.digest == "d"


def test_a_deadline_holds_for_a_whole_stream(peer: Peer) -> None:
    def slowly() -> Iterator[Any]:
        for _ in range(50):
            yield content_pb2.WriteContentRequest(data=b"x")
            time.sleep(patient(0.1))

    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        list(peer.client().write(slowly(), timeout=0.5))
    assert time.monotonic() - started < patient(4.5)  # by itself it would take patient(5)


@pytest.mark.parametrize("text", ["é" * 30_000, "x" * 30_000, "name \udcff\udcfe"])
def test_any_error_text_arrives(peer: Peer, text: str) -> None:
    # protobuf refuses lone surrogates in a request, so they are made at the server.
    peer.guinea.write_error = NotFound(f'file "{text}"')
    with pytest.raises(NotFound) as caught:
        list(peer.client().write(iter([])))
    assert str(caught.value).startswith('file "')
    assert str(caught.value).endswith(": not found")


def test_a_handler_that_reads_nothing_does_not_hold_up_the_connection(peer: Peer) -> None:
    peer.guinea.write_error = NotFound('ref "x"')
    client = peer.client()
    data = content_pb2.WriteContentRequest(data=b"x" * (1 << 20))
    with pytest.raises(NotFound):
        list(client.write(data for _ in range(30)))
    assert client.info(content_pb2.InfoRequest(digest="d"), timeout=5).info.digest == "d"


def test_a_fault_of_the_callers_iterator_ends_the_call(peer: Peer) -> None:
    def broken() -> Iterator[Any]:
        yield content_pb2.WriteContentRequest(data=b"x")
        raise ValueError("mine")

    with pytest.raises(OrlopError):
        list(peer.client().write(broken(), timeout=10))


def test_a_client_that_goes_away_is_not_the_end_of_its_stream(peer: Peer) -> None:
    go = threading.Event()

    def requests() -> Iterator[Any]:
        yield content_pb2.WriteContentRequest(data=b"x")
        go.wait(60)

    channel = peer.channel()
    stream = Client(CONTENT, channel).write(requests())
    assert next(stream).offset == 1
    channel.close()
    assert peer.guinea.ended.wait(5)
    go.set()
    # Half a stream must never pass for a whole one.
    assert not [total for total in peer.guinea.write_outcome if isinstance(total, int)]


def test_a_stopping_server_ends_streams_that_wait_for_their_client(peer: Peer) -> None:
    go = threading.Event()

    def requests() -> Iterator[Any]:
        yield content_pb2.WriteContentRequest(data=b"x")
        go.wait(20)

    stream = peer.client().write(requests())
    assert next(stream).offset == 1
    started = time.monotonic()
    peer.server.stop()
    assert time.monotonic() - started < patient(9)
    with pytest.raises((Cancelled, Unavailable)):
        next(stream)
    go.set()


def test_closing_a_stream_early(peer: Peer) -> None:
    client = peer.client()
    with client.read(content_pb2.ReadContentRequest(size=1000, offset=5)) as responses:
        assert len(next(responses).data) == 1000
    assert client.info(content_pb2.InfoRequest(digest="d"), timeout=5).info.digest == "d"


def test_a_closed_channel(peer: Peer) -> None:
    channel = peer.channel()
    client = Client(CONTENT, channel)
    channel.close()
    channel.close()
    with pytest.raises(Unavailable):
        client.info(content_pb2.InfoRequest())
    with pytest.raises(Unavailable):
        list(client.list(content_pb2.ListContentRequest()))


def test_calls_are_counted(peer: Peer) -> None:
    client = peer.client()
    client.info(content_pb2.InfoRequest())
    with pytest.raises(NotFound):
        client.delete(content_pb2.DeleteContentRequest())
    sent = len(list(client.list(content_pb2.ListContentRequest())))
    peer.server.stop()
    name = "containerd.services.content.v1.Content"
    info, delete, listing = (
        (kind, name, method)
        for kind, method in (("unary", "Info"), ("unary", "Delete"), ("server_stream", "List"))
    )
    assert peer.calls.started() == {info: 1, delete: 1, listing: 1}
    assert peer.calls.handled() == {
        (*info, "OK"): 1,
        (*delete, "NotFound"): 1,
        (*listing, "OK"): 1,
    }
    assert peer.calls.received() == {info: 1, delete: 1, listing: 1}
    assert peer.calls.sent() == {info: 1, delete: 0, listing: sent}
    times = peer.calls.read()
    assert all(sum(found.counts) == 1 and 0 <= found.sum < 5 for found in times.values())


def test_a_call_that_is_part_of_a_trace_is_an_example(peer: Peer) -> None:
    method = peer.table.find("containerd.services.content.v1.Content", "Info")
    assert method is not None
    known = "0af7651916cd43dd8448eb211c80319c"
    for trace in (f"00-{known}-b7ad6b7169203331-01", "nonsense", "00-x-y-z"):
        peer.calls.began(method)
        peer.calls.ended(method, CallContext(metadata={"traceparent": trace}), 0, 0.02)
    (found,) = peer.calls.read().values()
    (example,) = found.exemplars.values()
    assert (example.trace, example.value) == (known, 0.02)


def test_methods_that_are_not_served_are_not_counted(peer: Peer) -> None:
    channel = peer.channel()
    with pytest.raises(Unimplemented):
        channel.begin("no.such.Service", "Method", b"", metadata={}, timeout=5).result(5)
    assert peer.calls.started() == {}


def _collector() -> Any:
    """A service with what containerd has none of: many requests, one (empty) response."""
    file = FileDescriptorProto(name="collect.proto", package="test", syntax="proto3")
    file.dependency.extend(["google/protobuf/empty.proto", "google/protobuf/wrappers.proto"])
    rpc = file.service.add(name="Collector").method.add(name="Collect", client_streaming=True)
    rpc.input_type, rpc.output_type = ".google.protobuf.BytesValue", ".google.protobuf.Empty"
    pool = DescriptorPool()
    for known in (Empty, BytesValue):
        pool.AddSerializedFile(known.DESCRIPTOR.file.serialized_pb)
    pool.Add(file)
    return pool.FindServiceByName("test.Collector")


class Collector(Service):
    DESCRIPTOR = _collector()

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def collect(self, requests: Iterator[Any], ctx: CallContext) -> Empty:
        self.got.extend(request.value for request in requests)
        return Empty()


@pytest.mark.parametrize("kind", ["grpc", "ttrpc"])
def test_many_requests_and_one_empty_response(tmp_path: Path, kind: str) -> None:
    collector, reactor, path = Collector(), Reactor(), tmp_path / "s.sock"
    table = ServiceTable(collector)
    server: Any = GrpcServer(table, reactor) if kind == "grpc" else TtrpcServer(table, reactor)
    server.add_unix(path)
    server.start()
    channel: Any = GrpcChannel(str(path)) if kind == "grpc" else TtrpcChannel.connect(str(path))
    try:
        answer = Client(Collector.DESCRIPTOR, channel).collect(
            BytesValue(value=data) for data in (b"a", b"", b"c")
        )
        assert answer.DESCRIPTOR.full_name == "google.protobuf.Empty"
        assert collector.got == [b"a", b"", b"c"]
    finally:
        channel.close()
        server.stop()
        reactor.close()
