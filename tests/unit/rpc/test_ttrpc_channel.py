"""The ttrpc channel: with a reactor, and without one, where the callers themselves read."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable
from orlop.rpc import CallContext
from orlop.rpc.client import Client
from orlop.rpc.reactor import Reactor
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.wire.services import content_pb2
from tests.patience import patient, wait_for
from tests.unit.rpc.guinea import CONTENT, Peer


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    found = Peer("ttrpc", tmp_path / "s.sock")
    yield found
    found.close()


def _in_thread(action: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(action())
        except Exception as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def _ends(thread: threading.Thread) -> None:
    thread.join(patient(20))
    assert not thread.is_alive()


def test_a_channel_of_its_own_has_no_thread(peer: Peer) -> None:
    client = peer.client()
    before = set(threading.enumerate())
    client.info(content_pb2.InfoRequest())
    assert {each.name for each in set(threading.enumerate()) - before} <= {"ttrpc"}  # its server's


def test_callers_take_turns_in_reading(peer: Peer) -> None:
    client = peer.client()
    waiting, outcome = _in_thread(lambda: client.status(content_pb2.StatusRequest()))
    assert peer.guinea.entered.wait(5)
    # The first caller reads, and gives these their answers.
    for number in range(20):
        digest = str(number)
        answer = client.info(content_pb2.InfoRequest(digest=digest), timeout=5)
        assert answer.info.digest == digest
    # It goes; another must take over.
    other, later = _in_thread(lambda: client.status(content_pb2.StatusRequest(), timeout=20))
    peer.guinea.ended.set()
    _ends(waiting)
    _ends(other)
    assert isinstance(outcome[0], content_pb2.StatusResponse)
    assert isinstance(later[0], content_pb2.StatusResponse)


def test_a_reader_that_gives_up_hands_over(peer: Peer) -> None:
    channel = peer.channel()
    calls = [channel.begin(CONTENT.full_name, "Status", b"", metadata={}) for _ in range(2)]
    first, early = _in_thread(lambda: calls[0].result(0.3))
    time.sleep(0.05)
    second, late = _in_thread(lambda: calls[1].result(patient(20)))
    _ends(first)
    assert isinstance(early[0], DeadlineExceeded)
    peer.guinea.ended.set()
    _ends(second)
    assert isinstance(late[0], bytes)


@pytest.mark.parametrize("shared", [False, True])
def test_answers_as_long_as_a_client_takes_them(peer: Peer, shared: bool) -> None:
    def info(request: content_pb2.InfoRequest, _: CallContext) -> content_pb2.InfoResponse:
        return content_pb2.InfoResponse(info=content_pb2.Info(digest="d" * int(request.digest)))

    def asked(answer_max: int, size: int) -> int:
        reactor = peer.reactor if shared else None
        with closing(TtrpcChannel.connect(str(peer.path), reactor, answer_max=answer_max)) as mine:
            request = content_pb2.InfoRequest(digest=str(size))
            return len(Client(CONTENT, mine).info(request).info.digest)

    peer.serve(info=info)
    usual, more = protocol.PAYLOAD_MAX, 3 * protocol.PAYLOAD_MAX
    assert asked(more, more - 100) == more - 100
    with pytest.raises(ResourceExhausted):
        asked(usual, usual)
    with pytest.raises(ResourceExhausted):
        asked(more, more)
    assert asked(usual, 1) == 1


def test_no_client_is_given_more_than_is_sane(peer: Peer) -> None:
    peer.serve(info=lambda *_: content_pb2.InfoResponse(
        info=content_pb2.Info(digest="d" * protocol.ABSURD)
    ))  # fmt: skip
    with (
        closing(TtrpcChannel.connect(str(peer.path), answer_max=1 << 40)) as mine,
        pytest.raises(ResourceExhausted),
    ):
        Client(CONTENT, mine).info(content_pb2.InfoRequest())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("shared", [False, True])
def test_cancel_from_another_thread(peer: Peer, shared: bool) -> None:
    channel = TtrpcChannel.connect(str(peer.path), peer.reactor if shared else None)
    call = channel.begin(CONTENT.full_name, "Status", b"", metadata={})
    thread, outcome = _in_thread(call.result)
    assert peer.guinea.entered.wait(5)
    time.sleep(0.05)
    call.cancel()
    _ends(thread)
    assert isinstance(outcome[0], Cancelled)
    # The late answer is nobody's, and the channel goes on.
    peer.guinea.ended.set()
    assert Client(CONTENT, channel).info(content_pb2.InfoRequest(digest="d")).info.digest == "d"
    channel.close()


@pytest.mark.parametrize("shared", [False, True])
def test_close_wakes_whoever_waits(peer: Peer, shared: bool) -> None:
    closed = threading.Event()
    channel = TtrpcChannel.connect(
        str(peer.path), peer.reactor if shared else None, on_close=closed.set
    )
    threads = [
        _in_thread(channel.begin(CONTENT.full_name, "Status", b"", metadata={}).result)
        for _ in range(3)
    ]
    assert peer.guinea.entered.wait(5)
    time.sleep(0.05)
    channel.close()
    for thread, outcome in threads:
        _ends(thread)
        assert isinstance(outcome[0], Unavailable)
    assert closed.wait(5)  # the reactor may have been the first to see it


def test_channels_give_their_descriptors_back(peer: Peer) -> None:
    def use(reactor: Reactor | None) -> None:
        channel = TtrpcChannel.connect(str(peer.path), reactor)
        Client(CONTENT, channel).info(content_pb2.InfoRequest())
        channel.close()

    use(peer.reactor)
    before = _descriptors()
    for _ in range(50):
        use(None)
        use(peer.reactor)
    wait_for(lambda: _descriptors() <= before)


def test_a_lost_connection_fails_pending_calls_and_is_told_once(peer: Peer) -> None:
    told: list[int] = []
    channel = TtrpcChannel.connect(str(peer.path), peer.reactor, lambda: told.append(1))
    thread, outcome = _in_thread(
        channel.begin(CONTENT.full_name, "Status", b"", metadata={}).result
    )
    assert peer.guinea.entered.wait(5)
    peer.server.stop()
    _ends(thread)
    assert isinstance(outcome[0], Cancelled | Unavailable)
    for _ in range(100):
        if told:
            break
        time.sleep(0.02)
    channel.close()
    assert told == [1]
    with pytest.raises(Unavailable):
        channel.begin(CONTENT.full_name, "Info", b"", metadata={})


def _answering(*frames: bytes) -> tuple[Any, socket.socket]:
    """A client whose server answers with these frames, whatever is asked."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"".join(frames))
    return Client(CONTENT, TtrpcChannel(ours)), theirs


def test_streams_may_end_with_a_response_too() -> None:
    one = content_pb2.ReadContentResponse(offset=1).SerializeToString()
    client, theirs = _answering(protocol.encode_data(1, one), protocol.encode_response(1, b""))
    assert [r.offset for r in client.read(content_pb2.ReadContentRequest())] == [1]
    theirs.close()
    client, theirs = _answering(protocol.encode_data(1, one, last=True))
    assert [r.offset for r in client.read(content_pb2.ReadContentRequest())] == [1]
    theirs.close()


def test_answers_that_make_no_sense() -> None:
    client, theirs = _answering(protocol.encode_data(1, b"x"))
    with pytest.raises(Internal):
        client.info(content_pb2.InfoRequest())
    theirs.close()
    client, theirs = _answering(protocol.encode(1, protocol.RESPONSE, 0, b"\xff\xff"))
    with pytest.raises(Internal):
        client.info(content_pb2.InfoRequest())
    theirs.close()


def test_the_client_is_light() -> None:
    heavy = ["grpc", "asyncio", "logging", "concurrent.futures"]
    imports = "import sys, orlop.rpc.client, orlop.rpc.ttrpc.client"
    code = f"{imports}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
