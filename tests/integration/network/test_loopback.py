"""Published ports on [::1] in trouble: where they lead to, and what one connection can cost."""

from __future__ import annotations

import errno
import logging
import os
import resource
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from typing import Any, cast

import pytest

from orlop.fork.client import ForkServer
from orlop.network.loopback import Loopback
from orlop.network.model import Port
from orlop.network.ports import HostPorts
from orlop.network.relaying import Pair
from tests.integration.network.lab import run
from tests.integration.network.networked import Networked, fetch
from tests.patience import patient

WEB = [{"hostPort": 8080, "containerPort": 80}]
BOX = ("test", "box")


def test_it_leads_to_where_the_container_is_now(daemon: Networked) -> None:
    one, two = (daemon.create_network(name) for name in ("one", "two"))
    daemon.box("web", networks=[{"network": "one"}, {"network": "two"}], ports=WEB)

    def leads_to_web() -> bool:
        return [fetch(f"http://{each}:8080") for each in ("[::1]", "127.0.0.1")] == ["web"] * 2

    assert leads_to_web()
    for left, taken in ((one, two), (two, one)):
        daemon.orlop("network", "disconnect", left.id, "web")
        assert leads_to_web()
        daemon.orlop("network", "connect", left.id, "web")
        daemon.orlop("network", "disconnect", taken.id, "web")
        assert leads_to_web()
        daemon.orlop("network", "connect", taken.id, "web")


class Echo:
    """Says again what it hears on 127.0.0.1, to any number."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def echo(lab: object) -> Iterator[Echo]:
    with closing(Echo()) as made:
        yield made


@pytest.fixture
def ports(forks: ForkServer, echo: Echo) -> Iterator[HostPorts]:
    """Of which a container's lead to ourselves."""
    loopback = Loopback(forks)
    with closing(loopback), closing(HostPorts(loopback, lambda *_: "127.0.0.1")) as made:
        yield made


def _talk(port: int) -> socket.socket:
    made = socket.create_connection(("::1", port))
    made.settimeout(patient(10))
    return made


def _echoes(talking: socket.socket) -> bool:
    try:
        talking.sendall(b"a")
        return talking.recv(1) == b"a"
    except ConnectionResetError:
        return False


def _worker() -> int:
    servers = run("pgrep", "-P", str(os.getpid()), "orlop-fork").stdout.split()
    return int(run("pgrep", "-P", ",".join(servers), "orlop-loopback").stdout)


def test_a_connection_too_many_costs_no_other(ports: HostPorts, echo: Echo) -> None:
    ports.hold(BOX, [Port(container_port=echo.port, host_port=9001)], (4,), loopback=True)
    with closing(_talk(9001)) as first:
        assert _echoes(first)
        worker = _worker()
        soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        assert soft == hard
        used = len(os.listdir(f"/proc/{worker}/fd"))  # noqa: PTH208 - only how many
        for room in (0, 1):  # for none of the two sockets, and for one
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + room, hard))
            with closing(_talk(9001)) as second:
                assert not _echoes(second)
            assert _echoes(first)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
        with closing(_talk(9001)) as third:
            assert _echoes(third)
        assert _echoes(first) and _worker() == worker


class _Full(selectors.EpollSelector):
    """One that has so many places."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self._places = places

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if len(self.get_map()) == self._places:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().register(fileobj, events, data)


def test_who_cannot_be_watched_is_let_go_of(echo: Echo) -> None:
    for places in (0, 1):
        with _Full(places) as selector:
            client = socket.create_connection(("127.0.0.1", echo.port))
            with pytest.raises(OSError, match="No space") if not places else nullcontext():
                pair = Pair(selector, client, "127.0.0.1", echo.port)
            if places:  # the client is watched as soon as there is somebody to tell
                ((key, events),) = selector.select()
                pair.move(cast(socket.socket, key.fileobj), events)
            assert client.fileno() < 0 and not selector.get_map()


def test_a_process_that_reads_nothing_holds_nobody_up(
    ports: HostPorts, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    many = Port(container_port=echo.port, host_port=9001, count=20)
    ports.hold(BOX, [many], (4,), loopback=True)
    with closing(_talk(9001)) as first:
        assert _echoes(first)
    worker = _worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            for _ in range(1000):  # more than the channel takes
                asking = stack.enter_context(socket.socket(socket.AF_INET6))
                asking.setblocking(False)
                asking.connect_ex(("::1", 9001))
            until = time.monotonic() + patient(10)
            while "their process takes none" not in caplog.text and time.monotonic() < until:
                time.sleep(0.01)
        released = threading.Thread(target=ports.release, args=(BOX,), daemon=True)
        released.start()
        released.join(patient(10))
        assert not released.is_alive()
        with socket.socket(socket.AF_INET6) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("::1", 9001))
        assert caplog.text.count("their process takes none") == 1
    finally:
        os.kill(worker, signal.SIGCONT)


def test_who_has_it_is_told_of(
    ports: HostPorts, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = Port(container_port=echo.port, host_port=9001)
    with socket.create_server(("::1", 9001), family=socket.AF_INET6):
        ports.hold(BOX, [wanted], (4,), loopback=True)
    assert "port 9001 at [::1] leads to no container: address already in use" in caplog.text
    caplog.clear()
    run("ip", "addr", "del", "::1/128", "dev", "lo")
    ports.hold(BOX, [Port(container_port=echo.port, host_port=9002)], (4,), loopback=True)
    assert not caplog.text


def test_a_port_that_cannot_be_heard_is_as_hard_to_take_as_before(
    forks: ForkServer, echo: Echo
) -> None:
    with closing(Loopback(forks)) as loopback, socket.socket(socket.AF_INET6) as bound:
        with socket.socket(socket.AF_INET6) as other:
            for each in (other, bound):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.bind(("::1", 9001))
            other.listen()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            with pytest.raises(OSError, match="in use"):
                loopback.listen(bound, lambda: "127.0.0.1", echo.port)
        assert not bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
