"""The shim that `start` leaves behind: ttrpc by hand, so that it can be done wrong."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import NoReturn

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from orlop.errors import OrlopError, Unimplemented, Unknown
from orlop.rpc.table import snake_case
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call, ServerProtocol
from orlop.wire import runtime_sandbox_pb2, task_v3_pb2
from orlop.wire.ttrpc_pb2 import Response
from tests.strange_shim.containers import Containers
from tests.strange_shim.events import Publisher
from tests.strange_shim.manners import Manners
from tests.strange_shim.sandbox import Sandbox

SANDBOX = runtime_sandbox_pb2.DESCRIPTOR.services_by_name["Sandbox"]
TASK = task_v3_pb2.DESCRIPTOR.services_by_name["Task"]


def serve(listener: socket.socket, path: Path, manners: Path, namespace: str) -> NoReturn:
    """Serve until Shutdown."""
    publisher = Publisher(os.environ["TTRPC_ADDRESS"], namespace, manners)
    server = _Server(path, manners, publisher)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=server.connection, args=(sock,), daemon=True).start()


class _Server:
    def __init__(self, path: Path, manners: Path, publisher: Publisher) -> None:
        self._path = path
        self._manners = manners
        self._containers = Containers(publisher, manners)
        self._sandbox = Sandbox()
        self._publisher = publisher
        self._stayed = False

    def connection(self, sock: socket.socket) -> None:
        lock, reader = threading.Lock(), ServerProtocol()
        while data := sock.recv(65536):
            for event in reader.feed(data):
                if isinstance(event, Call):
                    threading.Thread(
                        target=self._call, args=(sock, lock, event), daemon=True
                    ).start()

    def _call(self, sock: socket.socket, lock: threading.Lock, call: Call) -> None:
        now = Manners.read(self._manners)
        here = now.step == call.method and call.service == self._service(call, now)
        here = here and now.spared.encode() not in call.payload
        if here and now.fault == "hang":
            time.sleep(1000)
        if here and now.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            answer = protocol.encode_response(call.stream, self._answer(call, now))
        except OrlopError as error:
            answer = protocol.encode_error(call.stream, error)
        except Exception as error:  # noqa: BLE001 - a defect of this program must be seen
            answer = protocol.encode_error(call.stream, Unknown(f"strange: {error!r}"))
        if here and now.fault in NONSENSE:
            answer = NONSENSE[now.fault](call.stream)
        with lock:
            sock.sendall(answer)
        if here and now.fault == "leave":
            os.kill(os.getpid(), signal.SIGKILL)
        if here and now.fault == "stay" and not self._stayed:
            self._stayed = True
            return
        if call.method == "Shutdown" and self._containers.empty and self._sandbox.empty:
            self._publisher.drain()
            self._path.unlink(missing_ok=True)
            os._exit(0)

    def _service(self, call: Call, now: Manners) -> str:
        """What this release calls the service."""
        if call.service == SANDBOX.full_name and now.version >= (2, 0):
            return call.service
        version = "v2" if now.version < (2, 0) else "v3"
        return f"containerd.task.{version}.Task"

    def _answer(self, call: Call, now: Manners) -> bytes:
        if call.service != self._service(call, now):
            raise Unimplemented(f"service {call.service}")
        place: object = self._containers
        service = TASK
        if call.service == SANDBOX.full_name:
            place, service = self._sandbox, SANDBOX
        method = service.methods_by_name[call.method]
        request = GetMessageClass(method.input_type).FromString(call.payload)
        answer: Message = getattr(place, snake_case(call.method))(request)
        return answer.SerializeToString()


def _noise(_: int) -> bytes:
    return random.Random(1).randbytes(64 * 1024)


def _length(stream: int) -> bytes:
    return struct.pack(">IIBB", 0xFFFFFFFF, stream, protocol.RESPONSE, 0) + bytes(1000)


def _too_long(stream: int) -> bytes:
    size = protocol.PAYLOAD_MAX + 1
    return struct.pack(">IIBB", size, stream, protocol.RESPONSE, 0) + bytes(size)


def _frame(stream: int) -> bytes:
    return protocol.encode(stream, protocol.RESPONSE, 0, b"\xff" * 100)


def _message(stream: int) -> bytes:
    response = Response(payload=b"\xff" * 100)
    return protocol.encode(stream, protocol.RESPONSE, 0, response.SerializeToString())


def _other(stream: int) -> bytes:
    return protocol.encode(stream, 77, 0, b"?")


def _many(stream: int) -> bytes:
    return protocol.encode(stream, protocol.DATA, 0, b"") * 100_000


NONSENSE = {
    "noise": _noise,
    "absurd length": _length,
    "too long": _too_long,
    "no response": _frame,
    "no message": _message,
    "unknown type": _other,
    "many frames": _many,
}
