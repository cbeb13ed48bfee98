"""The network service: networks, who is in them, network namespaces, events."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orlop.client import Connection
from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.wire.services import network_pb2 as wire
from tests.integration.network.lab import run
from tests.integration.network.networked import Networked


def test_networks_are_records(daemon: Networked) -> None:
    made = daemon.create_network("one", labels={"tier": "back"}, internal=True, mtu=1400)
    assert made.driver == "bridge" and made.bridge == "orlop0" and made.internal
    assert made.created_at.seconds and re.fullmatch("[0-9a-f]{12}", made.id)
    with daemon.connect() as connection:
        networks = connection.networks
        for name in ("one", made.id):
            assert networks.get(wire.GetNetworkRequest(name=name)).network == made
        found = networks.list(wire.ListNetworksRequest(filters=["labels.tier==back"])).networks
        assert list(found) == [made]
        with daemon.connect("elsewhere") as other, pytest.raises(NotFound):
            other.networks.get(wire.GetNetworkRequest(name="one"))
        with pytest.raises(AlreadyExists, match='network "one"'):
            daemon.create_network("one")
        with pytest.raises(FailedPrecondition, match=r'overlaps "192\.168\.7\.0/24"'):
            daemon.create_network("two", subnets=["192.168.0.0/16"])
        with pytest.raises(InvalidArgument):
            daemon.create_network("two", subnets=["192.168.0.1/16"])
        networks.delete(wire.DeleteNetworkRequest(name="one"))
        with pytest.raises(NotFound, match='network "one"'):
            networks.delete(wire.DeleteNetworkRequest(name="one"))


def test_a_running_container_comes_and_goes(daemon: Networked) -> None:
    daemon.create_network("one", subnets=["10.201.0.0/24"])
    daemon.box("box", "sleep", "1000")
    with daemon.connect() as connection:
        networks = connection.networks
        request = wire.AttachRequest(container_id="box", network="one", ip="10.201.0.9")
        made = networks.attach(request).endpoint
        assert (made.interface, made.network, made.addresses) == ("eth1", "one", ["10.201.0.9"])
        assert "10.201.0.9/24" in daemon.within("box", "ip", "addr", "show", "eth1")
        run("busybox", "ping", "-c", "1", "-W", "5", "10.201.0.9")
        with pytest.raises(AlreadyExists):
            networks.attach(request)
        answer = networks.inspect(wire.InspectRequest(container_id="box"))
        assert [each.network for each in answer.endpoints] == ["bridge", "one"]
        answer = networks.inspect(wire.InspectRequest(network="one"))
        assert [each.container_id for each in answer.endpoints] == ["box"]
        links = networks.stats(wire.NetworkStatsRequest(container_id="box")).links
        assert [each.name for each in links] == ["lo", "eth0", "eth1"]
        assert links[2].counters.rx_bytes and links[2].mac == made.mac
        networks.detach(wire.DetachRequest(container_id="box", network="one"))
        assert "eth1" not in daemon.within("box", "ip", "link")
        for call, refused in (
            (networks.detach, wire.DetachRequest(container_id="box", network="one")),
            (networks.attach, wire.AttachRequest(container_id="box", network="two")),
            (networks.attach, wire.AttachRequest(container_id="none", network="one")),
            (networks.stats, wire.NetworkStatsRequest(container_id="none")),
        ):
            with pytest.raises(NotFound):
                call(refused)


def test_named_namespaces_and_their_interfaces(daemon: Networked) -> None:
    with daemon.connect() as connection:
        netns = connection.netns
        made = netns.create(wire.CreateNetNSRequest(name="one")).netns
        assert Path(made.path).parent.parent == daemon.state / "netns"
        assert list(netns.list(wire.ListNetNSRequest()).netns) == [made]
        daemon.restart()
    with daemon.connect() as connection:
        netns = connection.netns
        run("ip", "link", "add", "v", "type", "veth", "peer", "name", "w")
        run("nsenter", f"--net={made.path}", "ip", "link", "add", "b0", "type", "bridge")
        links = netns.list_links(wire.ListLinksRequest(netns="one")).links
        assert [(each.name, each.kind, each.up) for each in links] == [
            ("lo", "", True),
            ("b0", "bridge", False),
        ]
        run("ip", "link", "del", "v")
        with pytest.raises(AlreadyExists):
            netns.create(wire.CreateNetNSRequest(name="one"))
        for name in ("..", ""):
            with pytest.raises(InvalidArgument):
                netns.create(wire.CreateNetNSRequest(name=name))
        netns.delete(wire.DeleteNetNSRequest(name="one"))
        with pytest.raises(NotFound):
            netns.list_links(wire.ListLinksRequest(netns="one"))
        with pytest.raises(InvalidArgument):
            netns.list_links(wire.ListLinksRequest())


def test_events_tell_what_happens(daemon: Networked) -> None:
    with daemon.connect() as connection:
        from orlop.wire.services import events_pb2

        request = events_pb2.SubscribeRequest(filters=['topic~="/network/"'])
        heard: list[str] = []

        def listen(envelopes: object) -> None:
            try:
                for each in envelopes:  # type: ignore[attr-defined]
                    heard.append(each.topic)
            except OrlopError:
                pass

        stream = connection.events.subscribe(request)
        thread = threading.Thread(target=listen, args=(stream,), daemon=True)
        thread.start()
        daemon.wait_for(lambda: bool(heard) or bool(daemon.create_network(f"n{len(heard)}x")))
        daemon.wait_for(lambda: bool(heard))
        heard.clear()
        daemon.box("box", "sleep", "1000")
        daemon.orlop("rm", "-f", "box")
        daemon.wait_for(lambda: "/network/detach" in heard)
        assert heard == ["/network/create", "/network/attach", "/network/detach"]


def test_many_come_and_go_at_once(daemon: Networked) -> None:
    """Through the service, from several clients: what one has, no other gets."""
    daemon.create_network("one", subnets=["10.201.0.0/28"])
    daemon.box("box", "sleep", "1000")
    problems: list[str] = []

    def one(action: Callable[[Connection], object]) -> None:
        with daemon.connect() as connection:
            for _ in range(10):
                try:
                    action(connection)
                except OrlopError as error:
                    if not isinstance(error, (AlreadyExists, NotFound)):
                        problems.append(str(error))

    actions: list[Callable[[Connection], object]] = [
        lambda c: c.networks.attach(wire.AttachRequest(container_id="box", network="one")),
        lambda c: c.networks.detach(wire.DetachRequest(container_id="box", network="one")),
    ]
    threads = [threading.Thread(target=one, args=(each,)) for each in actions * 3]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not problems
