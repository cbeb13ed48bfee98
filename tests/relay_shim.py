"""A shim that speaks gRPC: before orlop's own, to which it passes every call on.

A stand-in for shims of other languages, run as shim binaries are.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from orlop.errors import Unavailable
from orlop.rpc import CallContext, Service, ServiceTable
from orlop.rpc.context import NAMESPACE_HEADER_TTRPC
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.rpc.table import snake_case
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.wire import task_v3_pb2 as task

TASK = task.DESCRIPTOR.services_by_name["Task"]
BEHIND = str(Path(sys.executable).parent / "containerd-shim-orlop-v2")


class Relay(Service):
    """Passes each call of the Task service on."""

    DESCRIPTOR = TASK

    def __init__(self, path: str) -> None:
        self.over = threading.Event()
        self._channel = TtrpcChannel.connect(path)

    def pass_on(self, name: str, request: Any, ctx: CallContext) -> bytes:
        try:
            return self._channel.unary(
                TASK.full_name, name, request.SerializeToString(),
                metadata={NAMESPACE_HEADER_TTRPC: ctx.namespace}, timeout=ctx.remaining(),
            )  # fmt: skip
        except Unavailable:
            self.over.set()
            raise


def _method(name: str, answer: Any) -> Any:
    def method(self: Relay, request: Any, ctx: CallContext) -> Any:
        found = answer.FromString(self.pass_on(name, request, ctx))
        if name == "Shutdown":
            threading.Timer(0.1, self.over.set).start()
        return found

    return method


def _complete() -> None:
    from google.protobuf.message_factory import GetMessageClass

    for rpc in TASK.methods:
        setattr(Relay, snake_case(rpc.name), _method(rpc.name, GetMessageClass(rpc.output_type)))


def main() -> int:
    done = subprocess.run(
        [BEHIND, *sys.argv[1:]], stdin=sys.stdin, stdout=subprocess.PIPE, check=False
    )
    if sys.argv[-1] != "start" or done.returncode:
        sys.stdout.buffer.write(done.stdout)
        return done.returncode
    behind = json.loads(done.stdout)["address"].removeprefix("unix://")
    path = f"/run/containerd/s/relay-{hashlib.sha256(behind.encode()).hexdigest()[:32]}"
    ready, tell = os.pipe()
    if not os.fork():
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        _complete()
        relay = Relay(behind)
        server = GrpcServer(ServiceTable(relay), Reactor())
        server.add_unix(Path(path))
        server.start()
        os.write(tell, b"1")
        relay.over.wait()
        server.stop()
        os._exit(0)
    os.close(tell)
    os.read(ready, 1)
    print(json.dumps({"version": 3, "address": f"unix://{path}", "protocol": "grpc"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
