"""A watch of a network namespace: what is told, how it ends, and that nothing of it stays."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orlop.client import Connection
from orlop.errors import InvalidArgument, NotFound, OrlopError, Unavailable
from orlop.fork.client import ForkServer
from orlop.network import PinnedNamespaces, monitor
from orlop.network.changes import Watch
from orlop.network.model import Change
from orlop.rpc.client import Client
from orlop.rpc.grpc.client import GrpcChannel
from orlop.wire.services import links_pb2 as wire
from orlop.wire.services import network_pb2
from tests.integration.network.lab import run
from tests.integration.network.networked import Networked
from tests.patience import patient

LAB = wire.Place(netns="lab")


class Heard:
    """What a watch tells, taken by a thread; `end` is the error with which it ended."""

    def __init__(self, stream: Any) -> None:
        self._told: queue.Queue[Any] = queue.Queue()
        self.end: OrlopError | None = None
        self._thread = threading.Thread(target=self._listen, args=(stream,), daemon=True)
        self._thread.start()

    def _listen(self, stream: Any) -> None:
        try:
            for each in stream:
                self._told.put(each)
        except OrlopError as error:
            self.end = error

    def until(self, text: str) -> list[str]:
        """What is told, in short, until something is that begins with `text`."""
        found: list[str] = []
        while not (found and found[-1].startswith(text)):
            try:
                found.append(_short(self._told.get(timeout=patient(20))))
            except queue.Empty:
                raise AssertionError(f"{text} never came: {found} {self.end}") from None
        return found

    def wait_for_end(self) -> str:
        self._thread.join(patient(20))
        assert not self._thread.is_alive()
        return str(self.end)


def _short(each: wire.WatchResponse | Change) -> str:
    event = each.event if isinstance(each, Change) else wire.WatchResponse.Event.Name(each.event)
    words = [event.replace("_", "-").lower()]
    if each.event in ("link", "link-deleted", 1, 2):
        assert each.link is not None
        words += [each.link.name, *(["up"] if each.link.up else [])]
    if each.address:
        words += [each.interface, each.address]
    if each.event in ("route", "route-deleted", 5, 6):
        assert each.route is not None
        words += [each.route.destination, each.route.gateway or each.route.link]
    return " ".join(words)


@pytest.fixture
def connection(daemon: Networked) -> Iterator[Connection]:
    """With a named namespace, `lab`, and no watch at the end."""
    with daemon.connect() as made:
        made.netns.create(network_pb2.CreateNetNSRequest(name="lab"))
        yield made
    with daemon.connect() as made, suppress(NotFound):
        made.netns.delete(network_pb2.DeleteNetNSRequest(name="lab"))
    daemon.wait_for(lambda: not _watches(daemon))


def _watches(daemon: Networked) -> list[str]:
    """The processes of watches, which the fork server has."""
    found = []
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            if each.name.isdigit() and (each / "comm").read_text() == "orlop-netwatch\n":
                parent = (each / "stat").read_text().rpartition(")")[2].split()[1]
                owner = Path("/proc", parent, "stat").read_text().rpartition(")")[2].split()[1]
                if int(owner) == daemon.pid:
                    found.append(each.name)
    return found


def _path(connection: Connection) -> str:
    (found,) = connection.netns.list(network_pb2.ListNetNSRequest()).netns
    return str(found.path)


def test_what_is_there_and_what_changes_is_told(connection: Connection) -> None:
    heard = Heard(connection.links.watch(wire.WatchRequest(place=LAB)))
    assert heard.until("synced") == ["link lo up", "address lo 127.0.0.1/8", "address lo ::1/128",
                                     "synced"]  # fmt: skip
    ip = ("nsenter", f"--net={_path(connection)}", "ip")
    run(*ip, "link", "add", "b0", "type", "bridge")
    heard.until("link b0")
    run(*ip, "link", "set", "b0", "addrgenmode", "none", "up")
    heard.until("link b0 up")
    run(*ip, "addr", "add", "10.3.0.1/24", "dev", "b0")
    assert "address b0 10.3.0.1/24" in heard.until("route 10.3.0.0/24 b0")
    run(*ip, "route", "add", "10.9.0.0/16", "via", "10.3.0.9")
    heard.until("route 10.9.0.0/16 10.3.0.9")
    run(*ip, "route", "del", "10.9.0.0/16")
    heard.until("route-deleted 10.9.0.0/16 10.3.0.9")
    run(*ip, "-6", "route", "add", "fd09::/64", "dev", "b0")
    heard.until("route fd09::/64 b0")
    run(*ip, "route", "add", "10.9.0.0/16", "via", "10.3.0.9")
    # In a bridge and out of it again is no end of the interface.
    run(*ip, "link", "add", "v", "type", "veth", "peer", "name", "w")
    run(*ip, "link", "set", "v", "master", "b0")
    run(*ip, "link", "set", "v", "nomaster")
    run(*ip, "link", "add", "last", "type", "bridge")
    assert "link-deleted v" not in heard.until("link last")
    # Of its routes of IPv4 the kernel says nothing.
    run(*ip, "link", "del", "b0")
    found: list[str] = []
    wanted = {"link-deleted b0", "address-deleted b0 10.3.0.1/24", "route-deleted 10.3.0.0/24 b0",
              "route-deleted 10.9.0.0/16 10.3.0.9", "route-deleted fd09::/64 b0"}  # fmt: skip
    while not wanted <= set(found):
        found += heard.until("")


def test_a_watch_of_many_goes_with_each_ones_client(
    daemon: Networked, connection: Connection
) -> None:
    """By ttrpc a client goes with its connection, by gRPC it breaks the call off."""
    threads = []
    for _ in range(4):
        others = [daemon.connect() for _ in range(5)]
        for each in others:
            Heard(each.links.watch(wire.WatchRequest(place=LAB))).until("synced")
        service = wire.DESCRIPTOR.services_by_name["Links"]
        channel = GrpcChannel(daemon.address)
        stream = Client(service, channel, namespace=daemon.namespace).watch(
            wire.WatchRequest(place=LAB)
        )
        Heard(stream).until("synced")
        assert len(_watches(daemon)) == 6
        threads.append(_threads(daemon))
        stream.close()
        daemon.wait_for(lambda: len(_watches(daemon)) == 5)
        channel.close()
        for each in others:
            each.close()
        daemon.wait_for(lambda: not _watches(daemon))
    assert threads[3] < threads[0] + 18  # the pool's are used again, or at least mostly


def _threads(daemon: Networked) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def test_a_namespace_that_goes_ends_it(daemon: Networked, connection: Connection) -> None:
    path = _path(connection)
    by_name = Heard(connection.links.watch(wire.WatchRequest(place=LAB)))
    by_path = Heard(connection.links.watch(wire.WatchRequest(place=wire.Place(path=path))))
    daemon.box("box", "sleep", "1000")
    box = wire.Place(container_id="box")
    by_task = Heard(connection.links.watch(wire.WatchRequest(place=box)))
    for each in (by_name, by_path, by_task):
        each.until("synced")
    run("ip", "link", "add", "outer", "type", "veth", "peer", "name", "inner")
    inner = wire.MoveLink(name="inner", to=LAB)
    connection.links.move(wire.MoveLinkRequest(place=wire.Place(host=True), link=inner))
    connection.netns.delete(network_pb2.DeleteNetNSRequest(name="lab"))
    assert by_name.wait_for_end() == 'network namespace "lab": it is gone: not found'
    assert by_path.wait_for_end() == f'network namespace "{path}": it is gone: not found'
    # And the watch did not keep it: the cable is gone with it.
    daemon.wait_for(lambda: run("ip", "link", "show", "outer", check=False).returncode != 0)
    daemon.orlop("rm", "-f", "box")
    assert by_task.wait_for_end() == 'running task of container "box": it is gone: not found'


def test_what_can_be_no_watch_is_refused(connection: Connection) -> None:
    for place, kind, text in (
        (wire.Place(netns="none"), NotFound, 'network namespace "none"'),
        (wire.Place(path="/nowhere"), NotFound, 'watch network namespace "/nowhere"'),
        (wire.Place(path="/etc/passwd"), InvalidArgument, "is no network namespace"),
        (wire.Place(path="/proc/self/ns/net"), InvalidArgument, "only /proc/PID/ns/net can"),
        (wire.Place(container_id="none"), NotFound, 'running task of container "none"'),
        (wire.Place(), InvalidArgument, "no network namespace is said"),
    ):
        with pytest.raises(kind, match=text):
            list(connection.links.watch(wire.WatchRequest(place=place)))


def test_a_watch_ends_with_its_process_and_with_its_daemon(
    daemon: Networked, connection: Connection
) -> None:
    heard = Heard(connection.links.watch(wire.WatchRequest(place=LAB)))
    heard.until("synced")
    (pid,) = _watches(daemon)
    run("kill", "-9", pid)
    assert "worker" in heard.wait_for_end() and isinstance(heard.end, Unavailable)
    heard = Heard(connection.links.watch(wire.WatchRequest(place=LAB)))
    heard.until("synced")
    (pid,) = _watches(daemon)
    daemon.restart()
    heard.wait_for_end()
    daemon.wait_for(lambda: not Path("/proc", pid).exists())


class Picture:
    """Who reads a watch builds this: what is there, in short."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.events: list[str] = []

    def take(self, change: Change) -> None:
        self.events.append(change.event)
        kind, minus, _ = change.event.partition("-")
        if kind == "lost":
            self.there.clear()
        elif kind != "synced":
            what = f"{kind} {change.link.name}" if change.link else _short(change).partition(" ")[2]
            (self.there.discard if minus else self.there.add)(what)


def test_who_does_not_keep_up_is_told_and_gets_all_anew(
    forks: ForkServer, pins: PinnedNamespaces
) -> None:
    ns = str(pins.create("test", "one"))
    ip = ("nsenter", f"--net={ns}", "ip")
    run(*ip, "link", "add", "b0", "type", "bridge")
    run(*ip, "link", "add", "early", "type", "bridge")
    run(*ip, "link", "set", "b0", "up")
    picture = Picture()
    with Watch(forks, ns, "it") as watch:
        changes = iter(watch)
        while "synced" not in picture.events:
            picture.take(next(changes))
        batch = "".join(f"link set b0 alias text{n}\n" for n in range(4 * monitor.QUEUE))
        run(*ip, "-batch", "-", text=batch)
        run(*ip, "addr", "add", "10.3.0.1/24", "dev", "b0")
        run(*ip, "link", "del", "early")
        while "lost" not in picture.events:
            picture.take(next(changes))
        assert len(picture.events) < 4 * monitor.QUEUE
        run(*ip, "link", "add", "late", "type", "bridge")
        while not ("link late" in picture.there and picture.events[-1] != "lost"):
            picture.take(next(changes))
        while picture.events.count("lost") >= picture.events.count("synced"):
            picture.take(next(changes))
        fresh = Picture()
        with Watch(forks, ns, "it") as other:
            for each in other:
                fresh.take(each)
                if each.event == "synced":
                    break
        assert picture.there == fresh.there
        assert "link late" in fresh.there and "link early" not in fresh.there
        watch.close()
        with pytest.raises(Unavailable):
            while True:
                next(changes)


def test_what_the_kernel_drops_is_made_up_for(forks: ForkServer, pins: PinnedNamespaces) -> None:
    """It drops more until what it had kept is heard: what comes just then is told as well."""
    ns = str(pins.create("test", "one"))
    ip = ("nsenter", f"--net={ns}", "ip")
    run(*ip, "link", "add", "b0", "type", "bridge")
    run(*ip, "link", "set", "b0", "up")
    picture = Picture()
    with Watch(forks, ns, "it") as watch:
        changes = iter(watch)
        while "synced" not in picture.events:
            picture.take(next(changes))
        os.kill(watch._worker.pid, signal.SIGSTOP)
        run(*ip, "-batch", "-", text="".join(f"link set b0 alias t{n}\n" for n in range(8000)))
        os.kill(watch._worker.pid, signal.SIGCONT)
        late = [f"late{number}" for number in range(20)]
        for name in late:
            run(*ip, "link", "add", name, "type", "bridge")
        while not {f"link {name}" for name in late} <= picture.there:
            picture.take(next(changes))
        assert "lost" in picture.events
