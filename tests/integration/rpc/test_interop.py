"""Both transports against the real thing: containerd's ttrpc socket, and ctr on our gRPC server."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from orlop.errors import InvalidArgument, Unimplemented
from orlop.rpc import CallContext, Service, ServiceTable
from orlop.rpc.client import Client
from orlop.rpc.convert import pack, timestamp
from orlop.rpc.grpc.client import GrpcChannel
from orlop.rpc.grpc.server import GrpcServer
from orlop.rpc.reactor import Reactor
from orlop.rpc.ttrpc.client import TtrpcChannel
from orlop.rpc.ttrpc.server import TtrpcServer
from orlop.wire.events_pb2 import NamespaceCreate
from orlop.wire.services import events_pb2, events_ttrpc_pb2, version_pb2
from tests.patience import patient, wait_for

pytestmark = pytest.mark.root

EVENTS = events_pb2.DESCRIPTOR.services_by_name["Events"]
EVENTS_TTRPC = events_ttrpc_pb2.DESCRIPTOR.services_by_name["Events"]
VERSION = version_pb2.DESCRIPTOR.services_by_name["Version"]


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A containerd of our own with nothing but its events; the path of its socket."""
    folder = tmp_path_factory.mktemp("containerd")
    config, address = folder / "config.toml", folder / "c.sock"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", str(config), "--address", str(address)]
    command += ["--root", str(folder / "root"), "--state", str(folder / "state")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        wait_for(lambda: Path(f"{address}.ttrpc").exists() and address.exists(), 40)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _forward(topic: str) -> events_ttrpc_pb2.ForwardRequest:
    request = events_ttrpc_pb2.ForwardRequest()
    request.envelope.timestamp.CopyFrom(timestamp(time.time_ns()))
    request.envelope.namespace = "interop"
    request.envelope.topic = topic
    request.envelope.event.CopyFrom(pack(NamespaceCreate(name="seen")))
    return request


_PROBE = "/interop/probe"


def _until_heard(client: Client, seen: Iterator[Any]) -> None:
    """A subscription takes effect some time after its call has been sent."""
    heard = threading.Event()

    def call() -> None:
        while not heard.wait(0.05):
            client.forward(_forward(_PROBE), timeout=20)

    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(call)
        try:
            next(seen)
        finally:
            heard.set()
        calls.result()


@pytest.mark.parametrize("shared", [False, True])
def test_our_ttrpc_client_forwards_an_event_to_containerd(containerd: Path, shared: bool) -> None:
    reactor = Reactor()
    channel = TtrpcChannel.connect(f"{containerd}.ttrpc", reactor if shared else None)
    watcher = GrpcChannel(str(containerd))
    try:
        seen = Client(EVENTS, watcher).subscribe(events_pb2.SubscribeRequest())
        client = Client(EVENTS_TTRPC, channel, namespace="interop")
        topic = f"/interop/{shared}".lower()
        _until_heard(client, seen)
        for _ in range(100):
            client.forward(_forward(topic), timeout=patient(20))
        heard = (envelope for envelope in seen if envelope.topic != _PROBE)
        envelopes = list(islice(heard, 100))
        assert {envelope.topic for envelope in envelopes} == {topic}
        assert envelopes[0].event.type_url == "containerd.events.NamespaceCreate"
        with pytest.raises(InvalidArgument):
            client.forward(_forward("no slash"), timeout=patient(20))
        with pytest.raises(Unimplemented):
            Client(VERSION, channel).version(Empty(), timeout=patient(20))
        client.forward(_forward(topic), timeout=patient(20))
    finally:
        channel.close()
        watcher.close()
        reactor.close()


class Versions(Service):
    DESCRIPTOR = VERSION

    def version(self, request: Any, ctx: CallContext) -> Any:
        return version_pb2.VersionResponse(version="v0.0.42", revision="interop")


def test_ctr_asks_our_grpc_server_for_its_version(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    reactor = Reactor()
    server = GrpcServer(ServiceTable(Versions()), reactor)
    server.add_unix(path)
    server.start()
    try:
        done = _ctr(path, "version")
        assert "v0.0.42" in done.stdout
        assert "interop" in done.stdout
        # What is not served is told as such.
        done = _ctr(path, "images", "ls")
        assert done.returncode
        assert "is not served here" in done.stderr
    finally:
        server.stop()
        reactor.close()


def _ctr(address: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(address), *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def test_ttrpc_refuses_peers_of_another_user() -> None:
    reactor = Reactor()
    server = TtrpcServer(ServiceTable(Versions()), reactor)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        path = Path(folder) / "t.sock"
        server.add_unix(path, 0o666)
        server.start()
        try:
            assert _ask_as(path, os.geteuid()) == 0
            assert _ask_as(path, 65534) == 3
        finally:
            server.stop()
            reactor.close()


def _ask_as(path: Path, uid: int) -> int:
    """0 if a process of that user gets an answer, 3 if it is turned away."""
    script = (
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "sock.settimeout(5)\n"
        "sock.connect(sys.argv[1])\n"
        "try:\n"
        "    sock.sendall(bytes(4) + (1).to_bytes(4, 'big') + bytes([1, 0]))\n"
        "    answered = sock.recv(10)\n"
        "except ConnectionError:\n"
        "    answered = b''\n"
        "sys.exit(0 if answered else 3)\n"
    )
    # Not this interpreter: another user may not be able to read it.
    command = ["/usr/bin/python3", "-c", script, str(path)]
    done = subprocess.run(command, check=False, user=uid, timeout=30)
    return done.returncode


def test_a_killed_server_is_noticed(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    channel = TtrpcChannel(ours)
    call = channel.begin("a.B", "C", b"", metadata={})
    theirs.close()
    with pytest.raises(Exception, match="unavailable"):
        call.result(5)
    channel.close()
