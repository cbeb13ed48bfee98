"""What the ttrpc server does with clients that break the rules, or read slowly, or lag."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.errors import InvalidArgument, ResourceExhausted, Unimplemented
from orlop.rpc import CallContext
from orlop.rpc import inbox as inboxes
from orlop.rpc.inbox import Inbox
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Frame, FrameReader
from orlop.wire.services import content_pb2
from tests.patience import patient
from tests.unit.rpc.guinea import CONTENT, Peer


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    found = Peer("ttrpc", tmp_path / "s.sock")
    yield found
    found.close()


class Raw:
    """A client that sends what it likes."""

    def __init__(self, peer: Peer) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(peer.path))
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, stream: int, method: str, request: bytes = b"", flags: int = 0) -> None:
        frame = protocol.encode_request(
            stream, CONTENT.full_name, method, request, metadata={}, flags=flags
        )
        self.socket.sendall(frame)

    def frame(self) -> Frame:
        while not self._frames:
            data = self.socket.recv(1 << 20)
            assert data, "the server has closed the connection"
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)


def test_a_stream_ends_as_go_clients_expect(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.call(1, "List", flags=protocol.REMOTE_CLOSED)
        frames = [raw.frame() for _ in range(4)]
    assert [(frame.type, frame.flags) for frame in frames] == [
        (protocol.DATA, 0),
        (protocol.DATA, 0),
        (protocol.DATA, 0),
        (protocol.DATA, protocol.REMOTE_CLOSED | protocol.NO_DATA),
    ]


def test_wrong_stream_ids_are_refused_on_their_stream(peer: Peer) -> None:
    with Raw(peer) as raw:
        for stream, right in ((2, False), (3, True), (3, False), (1, False), (5, True)):
            raw.call(stream, "Info")
            answer = raw.frame()
            assert answer.stream == stream
            if right:
                protocol.decode_response(answer.payload)
            else:
                with pytest.raises(InvalidArgument):
                    protocol.decode_response(answer.payload)


def test_a_request_that_is_too_long_or_makes_no_sense(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.socket.sendall(struct.pack(">IIBB", protocol.PAYLOAD_MAX + 1, 1, protocol.REQUEST, 0))
        raw.socket.sendall(b"x" * (protocol.PAYLOAD_MAX + 1))
        with pytest.raises(ResourceExhausted):
            protocol.decode_response(raw.frame().payload)
        raw.socket.sendall(protocol.encode(3, protocol.REQUEST, 0, b"\xff\xff\xff"))
        with pytest.raises(InvalidArgument):
            protocol.decode_response(raw.frame().payload)
        raw.call(5, "Info", b"\xff\xff\xff")
        with pytest.raises(InvalidArgument):
            protocol.decode_response(raw.frame().payload)
        raw.call(7, "NoSuch")
        with pytest.raises(Unimplemented):
            protocol.decode_response(raw.frame().payload)
        raw.call(9, "Info")
        protocol.decode_response(raw.frame().payload)


def test_a_streamed_message_that_is_too_long_fails_its_call_once(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.call(1, "Write", flags=protocol.REMOTE_OPEN)
        raw.socket.sendall(struct.pack(">IIBB", protocol.PAYLOAD_MAX + 1, 1, protocol.DATA, 0))
        raw.socket.sendall(b"x" * (protocol.PAYLOAD_MAX + 1))
        with pytest.raises(ResourceExhausted):
            protocol.decode_response(raw.frame().payload)
        raw.call(3, "Info")
        assert raw.frame().stream == 3


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(min_size=1, max_size=400))
def test_garbage_harms_nobody_else(peer: Peer, garbage: bytes) -> None:
    with Raw(peer) as raw:
        raw.socket.sendall(garbage)
    with Raw(peer) as other:
        other.call(1, "Info")
        protocol.decode_response(other.frame().payload)


def test_a_flood_of_nonsense_without_reading_is_stopped(peer: Peer) -> None:
    nonsense = protocol.encode(2, protocol.REQUEST, 0, b"") * 10_000
    before = threading.active_count()
    with Raw(peer) as raw:
        raw.socket.settimeout(1)
        with pytest.raises(TimeoutError):  # the server reads no further
            for _ in range(1000):
                raw.socket.sendall(nonsense)
        assert threading.active_count() < before + 5
        with Raw(peer) as other:
            other.call(1, "Info")
            protocol.decode_response(other.frame().payload)


def test_a_client_that_does_not_read_holds_up_nobody_else(peer: Peer) -> None:
    request = content_pb2.ReadContentRequest(size=1 << 20, offset=50)
    with Raw(peer) as slow:
        slow.call(1, "Read", request.SerializeToString(), protocol.REMOTE_CLOSED)
        started = time.monotonic()
        with Raw(peer) as other:
            for stream in range(1, 100, 2):
                other.call(stream, "Info")
                protocol.decode_response(other.frame().payload)
        assert time.monotonic() - started < patient(5)
        total = 0
        while not (frame := slow.frame()).flags & protocol.REMOTE_CLOSED:
            total += len(content_pb2.ReadContentResponse.FromString(frame.payload or b"").data)
        assert total == 50 << 20


def test_stop_closes_under_a_client_that_does_not_read(peer: Peer) -> None:
    request = content_pb2.ReadContentRequest(size=1 << 20, offset=50)
    with Raw(peer) as slow:
        slow.call(1, "Read", request.SerializeToString(), protocol.REMOTE_CLOSED)
        slow.socket.recv(1)
        started = time.monotonic()
        peer.server.stop(grace=0.2)
        assert time.monotonic() - started < patient(10)


def test_a_lagging_handler_pauses_its_client() -> None:
    log: list[str] = []
    context = CallContext()
    inbox = Inbox(context, lambda: log.append("pause"), lambda: log.append("resume"))
    for _ in range(3):
        inbox.put(b"x" * (inboxes.HIGH // 2))
    assert log == ["pause"]
    messages = inbox.messages()
    next(messages)
    assert log == ["pause"]
    next(messages)
    next(messages)
    assert log == ["pause", "resume"]
    for _ in range(3):
        inbox.put(b"x" * (inboxes.HIGH // 2))
    inbox.close()
    assert log == ["pause", "resume"] * 2
    inbox.put(b"x" * inboxes.HIGH * 2)
    assert log == ["pause", "resume"] * 2


def test_a_slow_handler_gets_every_message(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "HIGH", 300_000)
    monkeypatch.setattr(inboxes, "LOW", 100_000)
    client = peer.client()
    data = content_pb2.WriteContentRequest(data=b"x" * 50_000)
    offsets: list[int] = []
    for answer in client.write(data for _ in range(400)):
        if len(offsets) % 50 == 0:
            time.sleep(0.01)
        offsets.append(answer.offset)
    assert offsets == [50_000 * n for n in range(1, 401)]
