"""The network service: networks, who is in them, network namespaces, events."""

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import Connection
from orlop.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    ResourceExhausted,
)
from orlop.wire.events_pb2 import NamespaceDelete
from orlop.wire.runc_pb2 import Options
from orlop.wire.services import events_pb2, leases_pb2, namespaces_pb2, tasks_pb2
from orlop.wire.services import network_pb2 as wire
from orlop.wire.types_pb2 import Envelope
from tests.integration.network.lab import run, snapshot
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


def test_a_network_that_cannot_be_is_refused(daemon: Networked) -> None:
    daemon.create_network("one", subnets=["10.201.0.0/24"], bridge="mine0")
    before = snapshot()
    for kind, text, fields in (
        (FailedPrecondition, 'overlaps "10.201.0.0/24"', {"subnets": ["10.201.0.128/25"]}),
        (FailedPrecondition, 'overlaps "192.168.7.0/24"', {"subnets": ["192.168.7.0/25"]}),
        (InvalidArgument, 'bridge "aaaaaaaaaaaaaaaa" of network "two"', {"bridge": "a" * 16}),
        (InvalidArgument, 'bridge "x" accept; }" of', {"bridge": 'x" accept; }'}),
        (FailedPrecondition, 'interface "wire" in', {"bridge": "wire"}),
        (AlreadyExists, 'interface "mine0" of another', {"bridge": "mine0"}),
        (InvalidArgument, 'MTU 67 of network "two"', {"mtu": 67}),
        (InvalidArgument, "has no room", {"subnets": ["10.202.0.0/31"]}),
        (InvalidArgument, 'driver "token"', {"driver": "token"}),
    ):
        with pytest.raises(kind) as told:
            daemon.create_network("two", **fields)
        assert text in str(told.value)
    assert snapshot() == before


def test_routers_to_everywhere_keep_no_network_from_being(daemon: Networked) -> None:
    everywhere = ("0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "192.168.0.0/16")
    for each in everywhere:
        run("ip", "route", "add", each, "via", "192.168.7.2")
    assert daemon.create_network("one").subnets[0].subnet == "10.88.0.0/20"
    daemon.create_network("two", subnets=["10.201.0.0/24"])
    with pytest.raises(FailedPrecondition, match=r'overlaps "192\.168\.7\.0/24"'):
        daemon.create_network("three", subnets=["192.168.0.0/16"])
    for each in everywhere:
        run("ip", "route", "del", each)
    run("ip", "route", "add", "10.88.0.0/16", "via", "192.168.7.2")
    assert daemon.create_network("three").subnets[0].subnet == "10.89.0.0/20"
    run("ip", "route", "del", "10.88.0.0/16")


def test_pools_end(lab: object, busybox_archive: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[network]\npool = "10.210.0.0/23"\npool_prefix = 24\n')
    daemon = Networked(["--config", str(config)])
    try:
        daemon.start()
        daemon.create_network("one")
        daemon.create_network("two")
        with pytest.raises(ResourceExhausted, match=r'"10\.210\.0\.0/23" has no free /24 left'):
            daemon.create_network("three")
        daemon.orlop("network", "rm", "one")
        assert daemon.create_network("three").subnets[0].subnet == "10.210.0.0/24"
        daemon.close()
    finally:
        daemon.discard()


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


def test_no_container_is_not_all_of_them(daemon: Networked) -> None:
    daemon.box("box", "sleep", "1000")
    daemon.box("brief", "sleep", "1000")
    exit_of_nobody = AnyMessage(type_url="containerd.events.TaskExit", value=b"")
    envelope = Envelope(namespace=daemon.namespace, topic="/tasks/exit", event=exit_of_nobody)
    envelope.timestamp.GetCurrentTime()
    with daemon.connect() as connection:
        for name in ("bridge", "cni:none"):
            with pytest.raises(InvalidArgument, match='container ""'):
                connection.networks.detach(wire.DetachRequest(network=name))
        connection.events.forward(events_pb2.ForwardRequest(envelope=envelope))
    daemon.orlop("rm", "-f", "brief")
    daemon.wait_for(lambda: daemon.gone("brief"))  # so the other has been heard, too
    assert not daemon.gone("box")
    assert "inet " in daemon.within("box", "ip", "addr", "show", "eth0")


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


def test_a_restore_that_fails_leaves_no_place_in_a_network(
    daemon: Networked, tmp_path: Path
) -> None:
    """For one that works see `tests/vm/test_checkpoints.py`."""
    daemon.box("box", "sleep", "1000", ports=[{"hostPort": 8080, "containerPort": 80}])
    daemon.orlop("stop", "-t", "0", "box")
    (tmp_path / "inventory.img").write_text("nothing that criu has made")
    options = AnyMessage()
    options.Pack(Options(criu_image_path=str(tmp_path)), type_url_prefix="")
    options.type_url = Options.DESCRIPTOR.full_name
    request = tasks_pb2.CreateTaskRequest(container_id="box", options=options)
    with daemon.connect() as connection:
        with suppress(NotFound):
            connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))
        daemon.wait_for(lambda: daemon.gone("box"))
        connection.tasks.create(request)
        assert [each.network for each in daemon.inspect("box").endpoints] == ["bridge"]
        with pytest.raises(OrlopError, match="restore failed"):
            connection.tasks.start(tasks_pb2.StartRequest(container_id="box"))
        connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id="box"))
        daemon.wait_for(lambda: daemon.gone("box"))
    daemon.orlop("start", "box")
    assert daemon.pid_of("box")


def test_labels_are_given_and_changed(daemon: Networked) -> None:
    mask = FieldMask(paths=["labels.tier"])
    with daemon.connect() as connection:
        networks, netns = connection.networks, connection.netns
        made = daemon.create_network("one", labels={"tier": "back", "keep": "x"})
        change = wire.Network(name="one", labels={"tier": "front", "other": "y"})
        request = wire.UpdateNetworkRequest(network=change, update_mask=mask)
        assert networks.update(request).network.labels == {"tier": "front", "keep": "x"}
        found = networks.get(wire.GetNetworkRequest(name=made.id)).network
        assert found.labels == {"tier": "front", "keep": "x"} and found.subnets == made.subnets
        request.update_mask.paths[:] = ["mtu"]
        with pytest.raises(InvalidArgument, match="mtu"):
            networks.update(request)
        request.network.name = "none"
        request.update_mask.Clear()
        with pytest.raises(NotFound, match='network "none"'):
            networks.update(request)
        netns.create(wire.CreateNetNSRequest(name="a", labels={"tier": "back"}))
        netns.create(wire.CreateNetNSRequest(name="b"))
        asked = wire.ListNetNSRequest(filters=["labels.tier==back"])
        assert [each.name for each in netns.list(asked).netns] == ["a"]
        wanted = wire.NetNS(name="b", labels={"tier": "back"})
        changed = wire.UpdateNetNSRequest(netns=wanted, update_mask=mask)
        assert netns.update(changed).netns.labels == {"tier": "back"}
        daemon.restart()
    with daemon.connect() as connection:
        netns = connection.netns
        found = netns.list(asked).netns
        assert [(each.name, each.labels["tier"]) for each in found] == [
            ("a", "back"),
            ("b", "back"),
        ]
        for name in ("a", "b"):
            netns.delete(wire.DeleteNetNSRequest(name=name))
        netns.create(wire.CreateNetNSRequest(name="a"))
        assert not netns.list(asked).netns
        netns.delete(wire.DeleteNetNSRequest(name="a"))


def test_a_lease_holds_what_is_made_under_it(daemon: Networked) -> None:
    with daemon.connect() as connection:
        lease = connection.leases.create(leases_pb2.CreateRequest(id="l")).lease
    with daemon.connect(lease="l") as connection:
        connection.networks.create(wire.CreateNetworkRequest(network=wire.Network(name="one")))
        connection.netns.create(wire.CreateNetNSRequest(name="lab"))
        request = leases_pb2.ListResourcesRequest(id=lease.id)
        held = connection.leases.list_resources(request).resources
        assert [(each.type, each.id) for each in held] == [("netns", "lab"), ("networks", "one")]
        other = leases_pb2.Resource(type="networks", id="bridge")
        connection.leases.add_resource(leases_pb2.AddResourceRequest(id="l", resource=other))
        connection.netns.delete(wire.DeleteNetNSRequest(name="lab"))
    with daemon.connect(lease="gone") as connection:
        with pytest.raises(NotFound, match='lease "gone"'):
            connection.networks.create(wire.CreateNetworkRequest(network=wire.Network(name="two")))
        with pytest.raises(NotFound, match='lease "gone"'):
            connection.netns.create(wire.CreateNetNSRequest(name="two"))
        assert not connection.netns.list(wire.ListNetNSRequest()).netns
        names = [
            each.name for each in connection.networks.list(wire.ListNetworksRequest()).networks
        ]
        assert names == ["one"]


def test_what_was_made_for_a_lease_goes_when_nothing_keeps_it(daemon: Networked) -> None:
    with daemon.connect() as connection:
        connection.leases.create(leases_pb2.CreateRequest(id="l"))
    with daemon.connect(lease="l") as connection:
        for name, labels in (("used", {}), ("free", {}), ("root", {"containerd.io/gc.root": "x"})):
            network = wire.Network(name=name, labels=labels)
            connection.networks.create(wire.CreateNetworkRequest(network=network))
            connection.netns.create(wire.CreateNetNSRequest(name=name, labels=labels))
    daemon.create_network("own")
    daemon.box("box", "sleep", "1000", networks=[{"network": "used"}])
    with daemon.connect() as connection:
        networks, netns = connection.networks, connection.netns
        netns.create(wire.CreateNetNSRequest(name="own"))
        everything = {"free", "own", "root", "used"}
        connection.leases.create(leases_pb2.CreateRequest(id="other"))
        connection.leases.delete(leases_pb2.DeleteRequest(id="other", sync=True))
        assert _names(networks.list(wire.ListNetworksRequest()).networks) == everything
        assert _names(netns.list(wire.ListNetNSRequest()).netns) == everything
        connection.leases.delete(leases_pb2.DeleteRequest(id="l", sync=True))
        assert _names(networks.list(wire.ListNetworksRequest()).networks) == everything - {"free"}
        assert _names(netns.list(wire.ListNetNSRequest()).netns) == {"own", "root"}
        daemon.orlop("rm", "-f", "box")
        daemon.wait_for(
            lambda: _names(networks.list(wire.ListNetworksRequest()).networks) == {"own", "root"}
        )
        for name in ("own", "root"):
            netns.delete(wire.DeleteNetNSRequest(name=name))


def _names(found: Iterable[Any]) -> set[str]:
    return {each.name for each in found}


def test_what_a_namespace_has_goes_with_it(daemon: Networked) -> None:
    with daemon.connect("elsewhere") as connection:
        connection.namespaces.create(
            namespaces_pb2.CreateNamespaceRequest(namespace={"name": "elsewhere"})
        )
        connection.networks.create(wire.CreateNetworkRequest(network=wire.Network(name="one")))
        connection.netns.create(wire.CreateNetNSRequest(name="lab"))
        connection.namespaces.delete(namespaces_pb2.DeleteNamespaceRequest(name="elsewhere"))
        daemon.wait_for(lambda: not connection.netns.list(wire.ListNetNSRequest()).netns)
        assert not connection.networks.list(wire.ListNetworksRequest()).networks


def test_a_namespace_that_is_there_keeps_what_it_has(daemon: Networked) -> None:
    """Whatever an event says; one that has gone unheard loses it at the next start."""
    gone = AnyMessage(type_url="containerd.events.NamespaceDelete")
    envelope = Envelope(namespace="elsewhere", topic="/namespaces/delete", event=gone)
    envelope.event.value = NamespaceDelete(name="elsewhere").SerializeToString()
    envelope.timestamp.GetCurrentTime()
    with daemon.connect("elsewhere") as connection:
        connection.networks.create(wire.CreateNetworkRequest(network=wire.Network(name="one")))
        connection.netns.create(wire.CreateNetNSRequest(name="lab"))
        connection.events.forward(events_pb2.ForwardRequest(envelope=envelope))
    daemon.box("brief", "sleep", "1000")
    daemon.orlop("rm", "-f", "brief")
    daemon.wait_for(lambda: daemon.gone("brief"))  # so the other has been heard, too
    assert _what_is_elsewhere(daemon) == ["lab", "one"]
    daemon.stop()
    with closing(sqlite3.connect(daemon.root / "metadata.db")) as database, database:
        database.execute("DELETE FROM namespaces WHERE name = 'elsewhere'")
    daemon.start()
    daemon.wait_for(lambda: _what_is_elsewhere(daemon) == [])


def _what_is_elsewhere(daemon: Networked) -> list[str]:
    with daemon.connect("elsewhere") as connection:
        pins = connection.netns.list(wire.ListNetNSRequest()).netns
        networks = connection.networks.list(wire.ListNetworksRequest()).networks
        return [each.name for each in (*pins, *networks)]


def _await_silence(daemon: Networked, heard: list[str]) -> None:
    """Until a subscription is in effect, and has heard all that was done to see that."""
    numbers = itertools.count()

    def probe() -> bool:
        daemon.create_network(f"p{next(numbers)}")
        return bool(heard)

    daemon.wait_for(probe)
    daemon.orlop("network", "rm", "p0")
    daemon.wait_for(lambda: heard[-1] == "/network/delete")


def test_events_tell_what_happens(daemon: Networked) -> None:
    with daemon.connect() as connection:
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
        daemon.create_network("n0x")
        _await_silence(daemon, heard)
        heard.clear()
        daemon.box("box", "sleep", "1000")
        daemon.orlop("rm", "-f", "box")
        daemon.wait_for(lambda: "/network/detach" in heard)
        assert heard == ["/network/create", "/network/attach", "/network/detach"]
        heard.clear()
        connection.networks.update(wire.UpdateNetworkRequest(network=wire.Network(name="n0x")))
        connection.networks.delete(wire.DeleteNetworkRequest(name="n0x"))
        connection.netns.create(wire.CreateNetNSRequest(name="lab"))
        connection.netns.update(wire.UpdateNetNSRequest(netns=wire.NetNS(name="lab")))
        connection.netns.delete(wire.DeleteNetNSRequest(name="lab"))
        daemon.wait_for(lambda: "/network/netns/delete" in heard)
        assert heard == [
            *("/network/update", "/network/delete"),
            *("/network/netns/create", "/network/netns/update", "/network/netns/delete"),
        ]


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
