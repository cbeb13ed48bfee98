"""Archives on the wire: credit as containerd's client gives and takes it, and who stalls."""

from __future__ import annotations

import io
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from orlop.client.archive import export_images, import_images
from orlop.errors import DeadlineExceeded, NotFound
from orlop.rpc.client import Client
from orlop.rpc.convert import pack
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services import streaming_pb2, transfer_pb2
from tests.archive_fixture import single_image
from tests.daemon_fixture import Orlopd
from tests.patience import patient

pytestmark = pytest.mark.root

NAME = "registry.test/hull:1"


def single(text: str = "hello") -> bytes:
    return single_image(NAME, text)


def _import(orlopd: Orlopd, data: bytes) -> list[str]:
    with orlopd.connect() as connection:
        return import_images(connection, io.BytesIO(data))


class GoClient:
    """Streams over gRPC as containerd's own client uses them: 64 KiB of credit, 32 KiB a piece."""

    PIECE, WINDOW = 32 << 10, 64 << 10

    def __init__(self, orlopd: Orlopd) -> None:
        self.channel: Any = GrpcChannel(orlopd.address)
        self._streaming, self._transfer = (
            Client(service, self.channel, namespace=orlopd.namespace)
            for service in (
                streaming_pb2.DESCRIPTOR.services_by_name["Streaming"],
                transfer_pb2.DESCRIPTOR.services_by_name["Transfer"],
            )
        )
        self._outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def open(self, id: str) -> Any:
        self._outgoing.put(pack(streaming_pb2.StreamInit(id=id)))
        stream = self._streaming.stream(iter(self._outgoing.get, None))
        next(stream)
        return stream

    def transfer(self, source: Message, destination: Message) -> None:
        self._transfer.transfer(
            transfer_pb2.TransferRequest(source=pack(source), destination=pack(destination)),
            timeout=20,
        )

    def send(self, data: bytes) -> None:
        """Send an archive, waiting for credit whenever none is left."""
        stream, left = self.open("in"), 0
        for at in range(0, len(data), self.PIECE):
            if left < self.PIECE:
                left += types.WindowUpdate.FromString(next(stream).value).update
            self._outgoing.put(pack(types.Data(data=data[at : at + self.PIECE])))
            left -= self.PIECE
        self._outgoing.put(None)
        for _ in stream:  # the daemon ends it
            pass

    def receive(self, out: io.BytesIO) -> None:
        stream, window = self.open("out"), 0
        while True:
            if window < self.WINDOW:
                self._outgoing.put(pack(types.WindowUpdate(update=self.WINDOW)))
                window += self.WINDOW
            message = next(stream, None)
            if message is None:
                self._outgoing.put(None)
                return
            piece = types.Data.FromString(message.value).data
            assert len(piece) <= window
            out.write(piece)
            window -= len(piece)


def test_a_client_that_streams_as_containerds_does(orlopd: Orlopd) -> None:
    archive = single(random.Random(7).randbytes(3 << 20).hex())
    reference = types.ImageReference(name="import", is_prefix=True, allow_overwrite=True)
    client = GoClient(orlopd)
    sender = threading.Thread(target=client.send, args=(archive,))
    sender.start()
    _retry(
        lambda: client.transfer(
            types.ImageImportStream(stream="in"), types.ImageStore(extra_references=[reference])
        )
    )
    sender.join(patient(60))
    assert not sender.is_alive()
    assert orlopd.ctr("images", "ls", "-q").stdout == f"{NAME}\n"
    out = io.BytesIO()
    client = GoClient(orlopd)
    receiver = threading.Thread(target=client.receive, args=(out,))
    receiver.start()
    _retry(
        lambda: client.transfer(types.ImageStore(name=NAME), types.ImageExportStream(stream="out"))
    )
    receiver.join(patient(60))
    assert not receiver.is_alive()
    ours = io.BytesIO()
    with orlopd.connect() as connection:
        export_images(connection, [NAME], ours)
    assert out.getvalue() == ours.getvalue()


def _retry(transfer: Callable[[], None]) -> None:
    """Call when the other thread has opened its stream."""
    end = time.monotonic() + patient(30)
    while time.monotonic() < end:
        try:
            transfer()
        except NotFound as error:
            assert "stream" in str(error)
            time.sleep(0.02)
        else:
            return
    pytest.fail("the stream is never opened")


@pytest.mark.parametrize("transport", ["ttrpc", "grpc"])
@pytest.mark.parametrize("way", ["import", "export"])
def test_a_deadline_ends_a_transfer_whose_client_stalls(
    orlopd: Orlopd, transport: str, way: str
) -> None:
    _import(orlopd, single())
    done = threading.Event()

    def requests() -> Iterator[Any]:
        yield pack(streaming_pb2.StreamInit(id="stalled"))
        done.wait(20)

    channel: Any = (
        GrpcChannel(orlopd.address)
        if transport == "grpc"
        else TtrpcChannel.connect(f"{orlopd.address}.ttrpc")
    )
    streaming, transfer = (
        Client(service, channel, namespace=orlopd.namespace)
        for service in (
            streaming_pb2.DESCRIPTOR.services_by_name["Streaming"],
            transfer_pb2.DESCRIPTOR.services_by_name["Transfer"],
        )
    )
    store = pack(types.ImageStore(name=NAME))
    ends = {
        "import": (pack(types.ImageImportStream(stream="stalled")), store),
        "export": (store, pack(types.ImageExportStream(stream="stalled"))),
    }
    stream = streaming.stream(requests())
    next(stream)
    began = time.monotonic()
    source, destination = ends[way]
    with pytest.raises(DeadlineExceeded):
        transfer.transfer(
            transfer_pb2.TransferRequest(source=source, destination=destination), timeout=0.5
        )
    assert time.monotonic() - began < patient(20)
    # The daemon lets go, though the client still has its stream open.
    orlopd.wait_for(lambda: len(orlopd.ctr("leases", "ls").stdout.splitlines()) == 1)
    orlopd.wait_for(lambda: not _reads_a_stream(orlopd))
    done.set()
    channel.close()


def _reads_a_stream(orlopd: Orlopd) -> bool:
    """Whether a thread of the daemon waits for a client's bytes or credit."""
    before = len(orlopd.log.read_text())
    os.kill(orlopd.pid, signal.SIGUSR1)
    time.sleep(0.3)
    dump = orlopd.log.read_text()[before:]
    # The thread that has the handler is the last one of a dump.
    return "Current thread" not in dump or "bytestreams.py" in dump
