"""Events to the daemon, one after another; or very many, whether it takes them or not."""

from __future__ import annotations

import queue
import socket
import threading
import time
from pathlib import Path

from google.protobuf.message import Message

from orlop.errors import OrlopError
from orlop.rpc.context import NAMESPACE_HEADER_TTRPC
from orlop.rpc.convert import pack, timestamp
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.wire.events_pb2 import TaskOOM
from orlop.wire.services.events_ttrpc_pb2 import ForwardRequest
from tests.strange_shim.manners import Manners

SERVICE = "containerd.services.events.ttrpc.v1.Events"


class Publisher:
    """Sends in order, on a thread of its own, and again until the daemon has taken an event."""

    def __init__(self, address: str, namespace: str, manners: Path) -> None:
        self._address = address
        self._namespace = namespace
        self._manners = manners
        self._queue: queue.Queue[ForwardRequest] = queue.Queue()
        self._channel: TtrpcChannel | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def publish(self, topic: str, message: Message) -> None:
        self._queue.put(self._request(topic, message))

    def babble(self) -> None:
        """Known topics, with what is no event at all."""
        for topic in ("/tasks/exit", "/tasks/oom", "/tasks/delete", "/containers/delete"):
            request = self._request(topic, TaskOOM())
            request.envelope.event.value = b"\xff" * 10
            self._queue.put(request)

    def _request(self, topic: str, message: Message) -> ForwardRequest:
        request = ForwardRequest()
        request.envelope.namespace = self._namespace
        request.envelope.topic = topic
        request.envelope.timestamp.CopyFrom(timestamp(time.time_ns()))
        request.envelope.event.CopyFrom(pack(message))
        return request

    def drain(self) -> None:
        self._queue.join()

    def _run(self) -> None:
        while True:
            request = self._queue.get()
            for _ in range(100):
                try:
                    if self._channel is None:
                        self._channel = TtrpcChannel.connect(self._address)
                    self._channel.unary(
                        SERVICE, "Forward", request.SerializeToString(),
                        metadata={NAMESPACE_HEADER_TTRPC: self._namespace}, timeout=10,
                    )  # fmt: skip
                    break
                except (OSError, OrlopError):
                    self._channel = None
                    time.sleep(0.1)
            self._queue.task_done()

    def flood(self, container: str) -> None:
        """As many as the manners say, on a connection of their own, as fast as they go."""
        now = Manners.read(self._manners)
        request = self._request("/tasks/oom", TaskOOM(container_id=container)).SerializeToString()
        metadata = {NAMESPACE_HEADER_TTRPC: self._namespace}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._address)
            if now.reads_answers:
                threading.Thread(target=_read_all, args=(sock,), daemon=True).start()
            for number in range(now.flood):
                stream = 2 * number + 1
                sock.sendall(
                    protocol.encode_request(stream, SERVICE, "Forward", request, metadata=metadata)
                )
            sock.shutdown(socket.SHUT_WR)
            time.sleep(1)


def _read_all(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass
