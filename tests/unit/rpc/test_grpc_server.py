"""What the gRPC server does with clients that break the rules, or read slowly, or lag."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.errors import NotFound
from orlop.rpc import CallContext, inbox
from orlop.rpc.client import Client
from orlop.rpc.grpc import http2, load
from orlop.rpc.grpc.connection import Connection
from orlop.rpc.grpc.hpack import Decoder, encode
from orlop.rpc.grpc.http2 import PREFACE, frame
from orlop.wire.services import content_pb2
from tests.patience import patient, wait_for
from tests.unit.rpc.guinea import CONTENT, Peer

_HEAD = 9


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    found = Peer("grpc", tmp_path / "s.sock")
    yield found
    found.close()


def _opening(stream: int, method: str, *extra: tuple[str, str], flags: int = 0) -> bytes:
    headers = [
        (":method", "POST"),
        (":path", f"/{CONTENT.full_name}/{method}"),
        ("content-type", "application/grpc"),
        *extra,
    ]
    return frame(http2.HEADERS, http2.END_HEADERS | flags, stream, encode(headers))


def _call(stream: int, method: str, request: bytes, *extra: tuple[str, str]) -> bytes:
    opening = _opening(stream, method, *extra)
    return opening + frame(http2.DATA, http2.END_STREAM, stream, _message(request))


def _message(payload: bytes) -> bytes:
    return struct.pack(">BI", 0, len(payload)) + payload


class Raw:
    """A client that sends what it likes."""

    def __init__(self, peer: Peer, *settings: tuple[int, int]) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(peer.path))
        self._buffer = bytearray()
        self._decoder = Decoder()
        self.headers: dict[str, str] = {}
        payload = b"".join(struct.pack(">HI", *each) for each in settings)
        self.send(PREFACE + frame(http2.SETTINGS, 0, 0, payload))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def open(self, stream: int, method: str, *extra: tuple[str, str], flags: int = 0) -> None:
        self.send(_opening(stream, method, *extra, flags=flags))

    def call(self, stream: int, method: str, request: bytes = b"", *extra: tuple[str, str]) -> None:
        self.send(_call(stream, method, request, *extra))

    def frame(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        self._fill(_HEAD)
        size = int.from_bytes(self._buffer[:3])
        self._fill(_HEAD + size)
        kind, flags, stream = struct.unpack(">BBI", self._buffer[3:_HEAD])
        payload = bytes(self._buffer[_HEAD : _HEAD + size])
        del self._buffer[: _HEAD + size]
        if kind == http2.HEADERS:
            self.headers = dict(self._decoder.decode(payload))
        return kind, flags, stream, payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._buffer += data

    def until(self, wanted: int) -> tuple[int, bytes]:
        """Stream and payload of the next frame of a kind."""
        while True:
            kind, _, stream, payload = self.frame()
            if kind == wanted:
                return stream, payload

    def status(self, stream: int) -> int:
        """How a call has ended."""
        while True:
            kind, flags, found, _ = self.frame()
            if (kind, found) == (http2.HEADERS, stream) and flags & http2.END_STREAM:
                return int(self.headers["grpc-status"])

    def farewell(self) -> int:
        """Why the server goes away."""
        _, payload = self.until(http2.GOAWAY)
        with pytest.raises(ConnectionError):
            while True:
                self.frame()
        return int.from_bytes(payload[4:8])


def _serves(peer: Peer) -> bool:
    with Raw(peer) as other:
        other.call(1, "Info")
        return other.status(1) == 0


def test_a_call_whose_request_comes_in_pieces(peer: Peer) -> None:
    request = content_pb2.InfoRequest(digest="d" * 300).SerializeToString()
    whole = frame(http2.DATA, 0, 1, _message(request)[:7])
    whole += frame(http2.DATA, 0x8, 1, b"\x04" + _message(request)[7:] + b"pads")
    whole += frame(http2.DATA, http2.END_STREAM, 1)
    with Raw(peer) as raw:
        raw.open(1, "Info", ("containerd-namespace", "ns"))
        for octet in whole:
            raw.send(bytes((octet,)))
        _, answer = raw.until(http2.DATA)
        assert raw.status(1) == 0
    info = content_pb2.InfoResponse.FromString(answer[5:]).info
    assert (info.digest, info.labels["ns"]) == ("d" * 300, "ns")


def test_headers_in_pieces(peer: Peer) -> None:
    block = encode(
        [(":path", f"/{CONTENT.full_name}/Info"), ("content-type", "application/grpc+proto")]
    )
    with Raw(peer) as raw:
        raw.send(frame(http2.HEADERS, 0x20, 1, b"\0\0\0\0\x10" + block[:10]))
        raw.send(frame(http2.CONTINUATION, 0, 1, block[10:20]))
        raw.send(frame(http2.CONTINUATION, http2.END_HEADERS, 1, block[20:]))
        raw.send(frame(http2.DATA, http2.END_STREAM, 1, _message(b"")))
        assert raw.status(1) == 0


def test_pings_and_settings_are_answered_and_what_is_unknown_is_not(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.send(frame(0x42, 0, 0, b"what?") + frame(2, 0, 1, b"\0\0\0\0\1"))
        raw.send(frame(http2.PING, 0, 0, b"12345678"))
        found = [raw.frame() for _ in range(4)]
    assert [(kind, flags) for kind, flags, _, _ in found] == [
        (http2.SETTINGS, 0),
        (http2.WINDOW_UPDATE, 0),
        (http2.SETTINGS, http2.ACK),
        (http2.PING, http2.ACK),
    ]
    assert found[3][3] == b"12345678"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\xff\xff\xff\0\0\0\0\0\0", http2.FRAME_SIZE_ERROR, id="long frame"),
        pytest.param(frame(http2.PING, 0, 0, b"1"), http2.FRAME_SIZE_ERROR, id="short ping"),
        pytest.param(frame(http2.SETTINGS, 0, 0, b"1"), http2.FRAME_SIZE_ERROR, id="half setting"),
        pytest.param(frame(http2.DATA, 0, 1, b"x"), http2.PROTOCOL_ERROR, id="no such stream"),
        pytest.param(frame(http2.HEADERS, 4, 2, b""), http2.PROTOCOL_ERROR, id="even stream"),
        pytest.param(frame(http2.HEADERS, 4, 1, b"\xbe"), http2.COMPRESSION_ERROR, id="headers"),
        pytest.param(
            frame(http2.HEADERS, 0, 1, b"") + frame(http2.PING, 0, 0, b"12345678"),
            http2.PROTOCOL_ERROR,
            id="interrupted headers",
        ),
        pytest.param(
            frame(http2.HEADERS, 0, 1, b"") + frame(http2.CONTINUATION, 0, 1, b"x" * 65_000) * 2,
            http2.ENHANCE_YOUR_CALM,
            id="endless headers",
        ),
        pytest.param(
            frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), http2.PROTOCOL_ERROR, id="no credit"
        ),
        pytest.param(
            frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
            http2.FLOW_CONTROL_ERROR,
            id="too much credit",
        ),
        pytest.param(frame(5, 4, 1, b"\0\0\0\2"), http2.PROTOCOL_ERROR, id="push"),
        pytest.param(
            _opening(1, "Info") + frame(http2.RST_STREAM, 0, 1, b"12345"),
            http2.FRAME_SIZE_ERROR,
            id="long reset",
        ),
        pytest.param(
            frame(http2.SETTINGS, http2.ACK, 0, b"123456"),
            http2.FRAME_SIZE_ERROR,
            id="acknowledgement with settings",
        ),
        pytest.param(frame(http2.SETTINGS, 0, 1), http2.PROTOCOL_ERROR, id="settings of a stream"),
        pytest.param(
            frame(http2.PING, 0, 1, b"12345678"), http2.PROTOCOL_ERROR, id="ping of a stream"
        ),
        pytest.param(
            _opening(1, "Info")
            + http2.credit(1, 1 << 30)
            + frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, http2.WINDOW_MAX)),
            http2.FLOW_CONTROL_ERROR,
            id="too much credit by settings",
        ),
        pytest.param(
            _opening(1, "Write", flags=http2.END_STREAM) * 2, http2.STREAM_CLOSED, id="two ends"
        ),
    ],
)
def test_who_breaks_the_rules_is_told_which_and_left(peer: Peer, data: bytes, code: int) -> None:
    with Raw(peer) as raw:
        raw.send(data)
        assert raw.farewell() == code
    assert _serves(peer)


def test_another_protocol_is_refused(peer: Peer) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(peer.path))
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        raw.settimeout(10)
        while raw.recv(1 << 16):
            pass


def test_calls_that_make_no_sense_fail_alone(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.call(1, "Info", b"\xff\xff")
        assert raw.status(1) == 3  # does not parse
        raw.open(3, "Info", flags=http2.END_STREAM)
        assert raw.status(3) == 13  # no request
        raw.open(5, "Info")
        raw.send(frame(http2.DATA, http2.END_STREAM, 5, b"\0\0\0\0\x09half"))
        assert raw.status(5) == 3
        raw.open(7, "Info")
        raw.send(frame(http2.DATA, 0, 7, b"\1\0\0\0\0"))
        assert raw.status(7) == 12  # compressed
        assert raw.headers["grpc-accept-encoding"] == "identity"
        raw.open(9, "Info")
        raw.send(frame(http2.DATA, 0, 9, b"\0\x7f\0\0\0"))
        assert raw.status(9) == 8  # too long
        raw.open(11, "NoSuch")
        assert raw.status(11) == 12
        for stream, kind in enumerate(("", "text/html", "application/grpc-web+proto")):
            block = encode([(":path", "/"), ("content-type", kind)])
            raw.send(frame(http2.HEADERS, 5, 13 + 2 * stream, block))
            raw.until(http2.HEADERS)
            assert raw.headers == {":status": "415"}
        raw.call(19, "Info")
        assert raw.status(19) == 0


def test_what_is_sent_waits_for_room(peer: Peer) -> None:
    """The client gives credit for a tenth of a message at a time, for the stream or for all."""
    request = content_pb2.ReadContentRequest(size=200_000).SerializeToString()
    with Raw(peer, (4, 0)) as raw:  # no stream may send anything
        raw.call(1, "Read", request)
        raw.call(3, "Info")  # has room for its headers, as little as this one
        raw.send(frame(http2.PING, 0, 0, b"12345678"))
        while (got := raw.frame())[:2] != (http2.PING, http2.ACK):
            assert got[0] != http2.DATA
        raw.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 20_000)))
        raw.send(http2.credit(0, 1_000_000))
        received = 0
        while received < 200_000:
            stream, data = raw.until(http2.DATA)
            if stream == 1:
                received += len(data)
                raw.send(http2.credit(1, len(data)))
        assert raw.status(1) == 0


def test_a_thousand_calls_that_wait_for_room(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets it for itself; if all looked each time, it would take a million wakings."""
    monkeypatch.setattr(load, "_LAGGING_MAX", 1000)
    request = content_pb2.ReadContentRequest(size=100).SerializeToString()
    streams = range(1, 2001, 2)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "Read", request) for stream in streams))
        connection = _connection(peer)
        end = time.monotonic() + 20
        while sum(each.room is not None for each in list(connection._streams.values())) < 1000:
            assert time.monotonic() < end
            time.sleep(0.05)
        started = time.process_time()
        raw.send(http2.credit(0, 1 << 20) + b"".join(http2.credit(each, 200) for each in streams))
        for _ in streams:
            while not (got := raw.frame())[1] & http2.END_STREAM or got[0] != http2.HEADERS:
                pass
        assert time.process_time() - started < 5


def test_room_for_all_wakes_who_waits_for_it(peer: Peer) -> None:
    """Two calls share the connection's room, which is given in crumbs."""
    request = content_pb2.ReadContentRequest(size=60_000).SerializeToString()
    with Raw(peer, (4, 1 << 20)) as raw:
        raw.call(1, "Read", request)
        raw.call(3, "Read", request)
        ended = 0
        while ended < 2:
            kind, flags, _, payload = raw.frame()
            if kind == http2.DATA:
                raw.send(http2.credit(0, len(payload)))
            ended += kind == http2.HEADERS and bool(flags & http2.END_STREAM)


def test_who_sends_more_than_it_may_is_left(peer: Peer) -> None:
    """The handler's answer is not read, so it takes no more, and its client gets no credit."""
    with Raw(peer, (4, 0)) as raw:
        raw.open(1, "Write")
        message = _message(content_pb2.WriteContentRequest(data=b"x" * 250_000).SerializeToString())
        with pytest.raises(OSError):
            for _ in range(10 * inbox.HIGH // len(message)):
                raw.send(frame(http2.DATA, 0, 1, message))
        assert raw.farewell() == http2.FLOW_CONTROL_ERROR


def test_a_handler_that_lags_stops_its_client_and_no_other(peer: Peer) -> None:
    """The guinea answers each message, and its answers are not read: it lags."""
    with Raw(peer, (4, 0)) as raw:
        raw.open(1, "Write")
        message = _message(content_pb2.WriteContentRequest(data=b"x" * 250_000).SerializeToString())
        allowed, sent = http2.STREAM_WINDOW, 0
        raw.socket.settimeout(patient(6))
        with pytest.raises(TimeoutError):
            while sent < 10 * inbox.HIGH:
                if allowed < len(message):
                    stream, credit = raw.until(http2.WINDOW_UPDATE)
                    allowed += int.from_bytes(credit) if stream == 1 else 0
                    continue
                for start in range(0, len(message), 1 << 14):
                    raw.send(frame(http2.DATA, 0, 1, message[start : start + (1 << 14)]))
                allowed, sent = allowed - len(message), sent + len(message)
        assert inbox.HIGH < sent < 2 * inbox.HIGH
        assert _serves(peer)
        raw.socket.settimeout(10)
        raw.send(http2.credit(1, 1 << 20))  # now it reads: the handler goes on, and so may we
        while raw.until(http2.WINDOW_UPDATE)[0] != 1:
            pass


def test_a_call_that_has_ended_gets_no_credit(peer: Peer) -> None:
    """Its handler lags, and then fails without having read."""
    go = threading.Event()

    def write(requests: Iterator[Any], ctx: CallContext) -> Any:
        assert go.wait(20)
        raise NotFound("place")

    peer.serve(write=write)
    request = content_pb2.WriteContentRequest(data=b"x" * 250_000)
    payload = frame(http2.DATA, 0, 1, _message(request.SerializeToString()))
    with Raw(peer) as raw:
        raw.open(1, "Write")
        allowed = http2.STREAM_WINDOW
        for _ in range(inbox.HIGH // len(payload) + 1):
            while allowed < len(payload):
                stream, credit = raw.until(http2.WINDOW_UPDATE)
                allowed += int.from_bytes(credit) if stream == 1 else 0
            raw.send(payload)
            allowed -= len(payload)
        go.set()
        assert raw.status(1) == 5
        raw.send(frame(http2.PING, 0, 0, b"12345678"))
        found: list[tuple[int, int, int, bytes]] = []
        while not found or found[-1][:2] != (http2.PING, http2.ACK):
            found.append(raw.frame())
        assert (http2.WINDOW_UPDATE, 1) not in [(kind, stream) for kind, _, stream, _ in found]


def test_a_client_that_breaks_off_a_call_ends_it(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.call(1, "Status")
        assert peer.guinea.entered.wait(5)
        raw.send(http2.reset(1, 8))
        assert peer.guinea.ended.wait(5)
        raw.call(3, "Info")
        assert raw.status(3) == 0


def test_answers_that_nobody_waits_for_take_no_room(peer: Peer) -> None:
    """Those of calls that were broken off are not sent, so the client gives no credit for them."""
    entered, go = threading.Semaphore(0), threading.Event()

    def info(request: Any, ctx: CallContext) -> Any:
        entered.release()
        assert go.wait(20)
        return content_pb2.InfoResponse(info=content_pb2.Info(digest="x" * 40_000))

    peer.serve(info=info)
    with Raw(peer) as raw:
        for stream in (1, 3, 5, 7):
            raw.call(stream, "Info")
            assert entered.acquire(timeout=5)
            raw.send(http2.reset(stream, 8))
        raw.send(frame(http2.PING, 0, 0, b"12345678"))
        while raw.frame()[:2] != (http2.PING, http2.ACK):
            pass
        go.set()
        raw.call(9, "Info")
        assert raw.status(9) == 0


def test_settings_hold_when_they_are_acknowledged(peer: Peer) -> None:
    """No longer frame comes before: a client is entitled to refuse it."""
    request = content_pb2.ReadContentRequest(size=60_000).SerializeToString()
    for _ in range(5):
        with Raw(peer) as raw:
            for _ in range(3):
                raw.frame()
            raw.send(frame(0x42, 0, 0, b"x" * 30_000))  # much at once is read from now on
            larger = frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 5, 1 << 20))
            busy = frame(0x42, 0, 0) * 10_000
            raw.send(larger + _call(1, "Read", request) + busy)
            assert raw.frame()[:2] == (http2.SETTINGS, http2.ACK)
            assert raw.status(1) == 0


def test_a_call_that_was_broken_off_before_it_began_is_not_served(peer: Peer) -> None:
    served = threading.Event()

    def info(request: Any, ctx: CallContext) -> Any:
        served.set()
        return content_pb2.InfoResponse()

    peer.serve(info=info)
    with Raw(peer) as raw:
        raw.call(1, "Info", b"", ("grpc-timeout", "0n"))
        assert raw.status(1) == 4
        assert not served.is_set()


def test_a_call_that_is_read_after_its_client_has_gone_is_not_served(peer: Peer) -> None:
    """A thread that sends finds out first; the reader still has what was sent before."""
    with Raw(peer) as raw:
        raw.frame()
        connection = _connection(peer)
        connection.close()
        path = f"/{CONTENT.full_name}/Status"
        headers = {":path": path, "content-type": "application/grpc"}
        connection._take(http2.Opened(1, headers, ended=False))
        connection._take(http2.Data(1, _message(b""), 5, ended=True))
        assert not peer.guinea.entered.wait(0.2)


def test_a_flood_of_pings_without_reading_is_stopped(peer: Peer) -> None:
    pings = frame(http2.PING, 0, 0, b"12345678") * 10_000
    before = threading.active_count()
    with Raw(peer) as raw:
        raw.socket.settimeout(10)
        with pytest.raises(OSError):
            for _ in range(1000):
                raw.send(pings)
        assert threading.active_count() < before + 5
        assert _serves(peer)


def test_a_client_that_does_not_read_holds_up_nobody_else(peer: Peer) -> None:
    request = content_pb2.ReadContentRequest(size=1 << 20, offset=50)
    with Raw(peer, (4, (1 << 31) - 1)) as slow:
        slow.send(http2.credit(0, 1 << 30))
        slow.call(1, "Read", request.SerializeToString())
        started = time.monotonic()
        client = Client(CONTENT, peer.channel())
        for _ in range(50):
            client.info(content_pb2.InfoRequest())
        assert time.monotonic() - started < patient(5)


def test_answers_that_are_not_read_hold_few_threads(peer: Peer) -> None:
    streams = range(1, 6001, 2)
    with Raw(peer, (4, http2.WINDOW_MAX)) as raw:
        raw.send(http2.credit(0, 1 << 30))
        raw.send(b"".join(_call(stream, "Info", b"") for stream in streams))
        assert _serves(peer)
        assert peer.server.threads < 100
        _read_ends(raw, len(streams))


def test_answers_that_have_no_room_hold_few_threads(peer: Peer) -> None:
    streams = range(1, 2001, 2)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "Info", b"") for stream in streams))
        assert _serves(peer)
        assert peer.server.threads < 100
        raw.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        _read_ends(raw, len(streams))


def test_streams_that_lag_hold_few_threads(peer: Peer) -> None:
    streams = range(1, 2001, 2)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "List", b"") for stream in streams))
        connection = _connection(peer)
        wait_for(lambda: connection._load._lagging >= load._LAGGING_MAX + load._MOST, 10)
        assert _serves(peer)
        assert peer.server.threads < load._LAGGING_MAX + 2 * load._MOST
        raw.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        _read_ends(raw, len(streams))


def test_some_streams_that_lag_hold_up_no_call(peer: Peer) -> None:
    streams = range(1, 2 * load._LAGGING_MAX, 2)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "List", b"") for stream in streams))
        connection = _connection(peer)
        wait_for(lambda: connection._load._lagging == len(streams))
        raw.call(1001, "Info")
        raw.send(http2.credit(1001, 1000))
        assert raw.status(1001) == 0


def _connection(peer: Peer) -> Connection:
    """The only one, as soon as the server has it."""
    wait_for(lambda: len(peer.server._connections) == 1)
    connection: Connection
    (connection,) = peer.server._connections
    return connection


def _read_ends(raw: Raw, count: int) -> None:
    while count:
        kind, flags, _, _ = raw.frame()
        count -= kind == http2.HEADERS and bool(flags & http2.END_STREAM)


def test_calls_that_wait_hold_up_none_beside_them(peer: Peer) -> None:
    """As many as a client has containers whose ends it waits for."""
    waiting = range(1, 601, 2)
    entered = threading.Semaphore(0)

    def status(request: Any, ctx: CallContext) -> Any:
        ended = threading.Event()
        ctx.on_cancel(ended.set)
        entered.release()
        assert ended.wait(20)
        return content_pb2.StatusResponse()

    peer.serve(status=status)
    with Raw(peer) as raw:
        raw.send(b"".join(_call(stream, "Status", b"") for stream in waiting))
        for _ in waiting:
            assert entered.acquire(timeout=10)
        raw.call(1001, "Info")
        assert raw.status(1001) == 0


def test_calls_broken_off_while_they_wait_for_others_are_not_served(peer: Peer) -> None:
    served = 0

    def info(request: Any, ctx: CallContext) -> Any:
        nonlocal served
        served += 1
        return content_pb2.InfoResponse()

    peer.serve(info=info)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "Info", b"") for stream in range(1, 1001, 2)))
        wait_for(lambda: served >= 64, 10)
        connection = _connection(peer)
        wait_for(lambda: connection._load._size >= 64, 10)
        for stream in range(1001, 2001, 2):
            raw.send(_call(stream, "Info", b"") + http2.reset(stream, 8))
        raw.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        _read_ends(raw, 500)
        raw.call(2001, "Info")
        assert raw.status(2001) == 0
    assert served == 501
    wait_for(lambda: not peer.server._live._live, 10)


def test_too_many_calls_that_wait_for_others_are_refused(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_QUEUE_MAX", 10)
    with Raw(peer, (4, 0)) as raw:
        raw.send(b"".join(_call(stream, "Info", b"") for stream in range(1, 4001, 2)))
        stream, code = raw.until(http2.RST_STREAM)
        assert int.from_bytes(code) == http2.REFUSED_STREAM
        raw.send(frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        assert raw.status(1) == 0
    assert stream > 2 * 64


def test_a_server_that_stops_says_so(peer: Peer) -> None:
    with Raw(peer) as raw:
        raw.call(1, "Status")
        assert peer.guinea.entered.wait(5)
        stopping = threading.Thread(target=peer.server.stop)
        stopping.start()
        _, payload = raw.until(http2.GOAWAY)
        assert payload == struct.pack(">II", 1, http2.NO_ERROR)
        assert raw.status(1) == 14  # unavailable: it is not the client who has cancelled it
        stopping.join(10)


def test_what_a_client_is_told_to_ask_elsewhere_is_not_served(peer: Peer) -> None:
    held, served = threading.Event(), threading.Event()

    def status(request: Any, ctx: CallContext) -> Any:
        peer.guinea.entered.set()
        assert held.wait(20)
        return content_pb2.StatusResponse()

    def list_content(request: Any, ctx: CallContext) -> Iterator[Any]:
        served.set()
        yield from ()

    peer.serve(status=status, list=list_content)
    with Raw(peer) as raw:
        raw.call(1, "Status")
        assert peer.guinea.entered.wait(5)
        connection = _connection(peer)
        connection.retire()
        _, payload = raw.until(http2.GOAWAY)
        assert payload == struct.pack(">II", 1, http2.NO_ERROR)
        raw.call(3, "List")
        held.set()
        assert raw.status(1) == 0
        raw.send(frame(http2.PING, 0, 0, b"12345678"))
        while (got := raw.frame())[:2] != (http2.PING, http2.ACK):
            assert got[2] != 3
        assert not served.is_set()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(
            frame,
            st.integers(0, 10),
            st.integers(0, 255),
            st.integers(0, 6),
            st.binary(max_size=80),
        )
        | st.binary(max_size=40),
        max_size=8,
    )
)
def test_garbage_harms_nobody_else(peer: Peer, garbage: list[bytes]) -> None:
    with Raw(peer) as raw:
        try:
            raw.send(b"".join(garbage))
        except OSError:
            pass  # it was left
    assert _serves(peer)
