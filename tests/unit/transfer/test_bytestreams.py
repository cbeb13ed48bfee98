"""Bytes on a stream: credit both ways, and an end to every wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orlop.errors import Cancelled, InvalidArgument, Unavailable
from orlop.rpc.convert import pack
from orlop.transfer.bytestreams import WINDOW, ByteReader, ByteWriter
from orlop.transfer.streams import Stream
from orlop.wire.transfer_types_pb2 import Data, WindowUpdate
from tests.patience import patient, wait_for

_GONE = RuntimeError("client has gone")


class Client:
    """The other end of a stream."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stream = Stream(self._incoming())

    def _incoming(self) -> Iterator[Any]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield pack(item)

    def send(self, data: bytes) -> None:
        self._queue.put(Data(data=data))

    def grant(self, update: int) -> None:
        self._queue.put(WindowUpdate(update=update))

    def end(self) -> None:
        self._queue.put(None)

    def break_off(self) -> None:
        self._queue.put(_GONE)

    def taken(self) -> Iterator[Any]:
        """What the daemon sent, until it closed the stream."""
        return self.stream.outgoing()


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.end()
    assert not [each for each in threading.enumerate() if each.name == "stream-bytes"]


def test_what_is_sent_is_read_and_credit_follows(client: Client) -> None:
    half = bytes(WINDOW // 2)
    with ByteReader(client.stream, stall=patient(60)) as reader:
        for data in (half, half, b"rest"):
            client.send(data)
            assert reader.read() == data
        client.end()
        assert reader.read() == b""
    updates = [WindowUpdate.FromString(each.value).update for each in client.taken()]
    assert updates == [WINDOW, WINDOW // 2, WINDOW // 2]


def test_too_much_is_refused(client: Client) -> None:
    with ByteReader(client.stream, stall=patient(60)) as reader:
        client.send(bytes(WINDOW))
        client.send(b"!")
        wait_for(lambda: reader._error is not None)  # who reads before gives new credit
        with pytest.raises(InvalidArgument, match="more bytes than it was given credit for"):
            reader.read()
        client.end()


def test_a_reader_waits_for_nobody_for_ever(client: Client) -> None:
    with ByteReader(client.stream, stall=0.05) as reader:
        with pytest.raises(Unavailable, match=r"sent nothing for 0\.05 seconds"):
            reader.read()
        client.break_off()
        wait_for(lambda: reader._error is not None)
        with pytest.raises(Unavailable, match="client has gone"):
            reader.read()


@pytest.mark.parametrize("kind", [ByteReader, ByteWriter])
def test_a_cancelled_wait_ends_at_once(client: Client, kind: Any) -> None:
    with kind(client.stream, stall=patient(60)) as peer:
        threading.Timer(0.05, peer.abort).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            peer.read() if kind is ByteReader else peer.write(b"data")
        assert time.monotonic() - began < patient(5)
        client.end()


def test_a_cancelled_write_ends_though_there_is_credit(client: Client) -> None:
    with ByteWriter(client.stream, stall=60) as writer:
        client.grant(1 << 30)
        threading.Timer(0.05, writer.abort).start()
        with pytest.raises(Cancelled):
            for _ in range(100):
                writer.write(b"nobody takes it off the stream")
        client.end()


def test_no_more_is_written_than_there_is_credit_for(client: Client) -> None:
    got: list[bytes] = []

    def take() -> None:
        for each in client.taken():
            got.append(Data.FromString(each.value).data)
            client.grant(len(got[-1]))

    taker = threading.Thread(target=take)
    taker.start()
    data = bytes(range(256)) * 5000
    with ByteWriter(client.stream, stall=patient(60)) as writer:
        client.grant(1000)
        writer.write(data)
        writer.finish()
        client.end()
    taker.join()
    assert b"".join(got) == data
    assert max(map(len, got)) <= 1000


def test_a_writer_waits_for_nobody_for_ever(client: Client) -> None:
    with ByteWriter(client.stream, stall=0.05) as writer:
        client.grant(3)
        with pytest.raises(Unavailable, match=r"took nothing for 0\.05 seconds"):
            writer.write(b"more than three")
        client.grant(1 << 30)
        with pytest.raises(Unavailable, match="took nothing"):
            for _ in range(100):
                writer.write(b"nobody takes it off the stream")
        client.end()


def test_a_client_that_gives_up_ends_the_write(client: Client) -> None:
    with ByteWriter(client.stream, stall=60) as writer:
        client.grant(3)
        client.end()
        with pytest.raises(Unavailable, match="stopped reading before the end"):
            writer.write(b"more than three")


def test_bad_credit_is_refused(client: Client) -> None:
    with ByteWriter(client.stream, stall=60) as writer:
        client.grant(-5)
        with pytest.raises(InvalidArgument, match="credit of -5 bytes"):
            writer.write(b"data")
        client.end()
