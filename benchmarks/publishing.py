"""What goes through a published port: of a container of ours, and of Docker's on containerd.

Each is on a host of its own, and the client on another, on a cable. The server is a program of the
benchmark's in the container's network namespace: the same for both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.attaching import private_orlopd
from benchmarks.docker_engine import dockerd, save
from benchmarks.measure import Result, at_least, medians
from benchmarks.netlab import connect, host
from benchmarks.rivals import NAMESPACE, await_, folder, run
from benchmarks.stage import Stage

_HERE, _THERE = "192.168.7.1", "192.168.7.2"
_SECONDS = 1.0
_SERVER = """
import socket, threading
def listen(port, serve):
    with socket.create_server(("", port), backlog=512) as listening:
        while True:
            with listening.accept()[0] as peer:
                try:
                    serve(peer)
                except OSError:
                    pass
def answer(peer):
    while data := peer.recv(100):
        peer.sendall(data)
def stream(peer):
    data = bytes(1 << 20)
    while True:
        peer.sendall(data)
threading.Thread(target=listen, args=(81, stream), daemon=True).start()
listen(80, answer)
"""
_CLIENT = """
import socket, sys, time
what, host, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
count, begin, buffer = 0, time.perf_counter(), bytearray(1 << 20)
end = begin + limit
if what == "stream":
    with socket.create_connection((host, 8081)) as peer:
        while time.perf_counter() < end:
            count += peer.recv_into(buffer)
else:
    while time.perf_counter() < end:
        with socket.create_connection((host, 8080)) as peer:
            peer.sendall(b"ask")
            assert peer.recv(100) == b"ask"
        count += 1
print(count / (time.perf_counter() - begin))
"""


def bench_ports(stage: Stage) -> list[Result]:
    """Throughput, and requests with a connection each."""
    rounds = 3 if stage.quick else 9
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(stage))
        theirs = stack.enter_context(_docker(stage))

        def rates(what: str) -> tuple[float, float]:
            return medians(lambda: _rate(what, ours), lambda: _rate(what, theirs), rounds)

        gigabytes = [each / 1e9 for each in rates("stream")]
        return [
            Result.of("published port: throughput", gigabytes, "GB/s", at_least(1)),
            Result.of("published port: requests", rates("ask"), "/s", at_least(1)),
        ]


def _rate(what: str, client: Sequence[str]) -> float:
    """A second, from a client on the other host."""
    return float(run([*client, sys.executable, "-c", _CLIENT, what, _HERE, str(_SECONDS)]))


@contextmanager
def _hosts() -> Iterator[tuple[list[str], list[str]]]:
    with host() as server, host() as client:
        connect(server, client, (f"{_HERE}/24", f"{_THERE}/24"))
        yield server, client


@contextmanager
def _ours(stage: Stage) -> Iterator[list[str]]:
    """The client's host; two ports of the other one lead to a container of orlop's."""
    with (
        folder("ports") as path,
        _hosts() as (server, client),
        private_orlopd(path, server) as connection,
    ):
        save(stage.small, path / "busybox.tar")
        orlop = [str(Path(sys.executable).parent / "orlop"), "-a", connection.address,
                 "-n", NAMESPACE]  # fmt: skip
        run([*orlop, "load", "-i", str(path / "busybox.tar")])
        with _container(orlop):
            yield client


@contextmanager
def _docker(stage: Stage) -> Iterator[list[str]]:
    """The same of Docker's, on containerd."""
    with (
        _hosts() as (server, client),
        dockerd(stage, stage.theirs, server) as docker,
        _container(docker),
    ):
        yield client


@contextmanager
def _container(command: list[str]) -> Iterator[None]:
    """One with the server in its network; both commands know the same words."""
    ports = ("-p", "8080:80", "-p", "8081:81")
    run([*command, "run", "-d", "--name", "web", *ports, "busybox", "sleep", "10000"])
    try:
        pid = json.loads(run([*command, "inspect", "web"]))[0]["State"]["Pid"]
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        with subprocess.Popen([*inside, sys.executable, "-c", _SERVER]) as serving:
            try:
                await_(lambda: ":80 " in run([*inside, "ss", "-ltn"]), "server")
                yield
            finally:
                serving.kill()
    finally:
        run([*command, "rm", "-f", "web"])
