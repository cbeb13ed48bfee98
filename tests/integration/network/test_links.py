"""The service of links: interfaces, addresses and routes of namespaces, by name, path and task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orlop.client import Connection
from orlop.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.wire.services import links_pb2 as wire
from orlop.wire.services import network_pb2
from tests.daemon_fixture import Orlopd
from tests.integration.network.lab import run, snapshot
from tests.integration.network.networked import Networked

HOST = wire.Place(host=True)
LAB = wire.Place(netns="lab")


@pytest.fixture
def connection(daemon: Networked) -> Iterator[Connection]:
    """With a named namespace, `lab`."""
    with daemon.connect() as made:
        made.netns.create(network_pb2.CreateNetNSRequest(name="lab"))
        yield made
        made.netns.delete(network_pb2.DeleteNetNSRequest(name="lab"))


def _path(connection: Connection) -> str:
    (found,) = connection.netns.list(network_pb2.ListNetNSRequest()).netns
    return str(found.path)


def _names(connection: Connection, place: wire.Place) -> set[str]:
    return {each.name for each in connection.links.list(wire.ListLinksInRequest(place=place)).links}


def test_links_are_made_changed_moved_and_deleted(connection: Connection) -> None:
    links = connection.links
    cable = wire.AddLink(name="here", kind="veth", peer="there", peer_place=LAB, mtu=1300, up=True)
    made = links.create(wire.CreateLinkRequest(place=HOST, link=cable)).link
    assert (made.name, made.kind, made.mtu, made.up) == ("here", "veth", 1300, True)
    there = links.get(wire.GetLinkRequest(place=LAB, name="there")).link
    assert (there.parent, made.parent) == (made.index, there.index)
    change = wire.SetLink(name="there", mtu=1200, alias="of a test", rename="eth0", up=True)
    there = links.update(wire.UpdateLinkRequest(place=LAB, link=change)).link
    assert (there.name, there.mtu, there.alias, there.up) == ("eth0", 1200, "of a test", True)
    # The kernel has a cable up a moment after it was told to.
    request = wire.GetLinkRequest(place=LAB, name="eth0")
    Orlopd.wait_for(lambda: links.get(request).link.state == "up")
    there = links.get(request).link
    by_path = wire.Place(path=_path(connection))
    same = links.get(wire.GetLinkRequest(place=by_path, name="eth0")).link
    for each in (same, there):
        each.ClearField("counters")  # the kernel itself sends something now and then
    assert same == there
    move = wire.MoveLink(name="eth0", to=HOST, rename="back")
    back = links.move(wire.MoveLinkRequest(place=LAB, link=move)).link
    assert back.name == "back" and _names(connection, LAB) == {"lo"}
    assert {"here", "back"} <= _names(connection, HOST)
    gone = wire.DeleteLinkRequest(place=HOST, link=wire.DeleteLink(name="here"))
    links.delete(gone)
    assert not {"here", "back"} & _names(connection, HOST)
    with pytest.raises(NotFound, match='delete interface "here" in the daemon\'s network'):
        links.delete(gone)


def test_addresses_and_routes_carry_packets(connection: Connection) -> None:
    links = connection.links
    cable = wire.AddLink(name="here", kind="veth", peer="eth0", peer_place=LAB, up=True)
    links.create(wire.CreateLinkRequest(place=HOST, link=cable))
    up = wire.SetLink(name="eth0", up=True)
    links.update(wire.UpdateLinkRequest(place=LAB, link=up))
    for place, link, address in ((HOST, "here", "10.9.0.1/24"), (LAB, "eth0", "10.9.0.2/24")):
        wanted = wire.AddAddress(link=link, address=address)
        links.add_address(wire.AddAddressRequest(place=place, address=wanted))
    with pytest.raises(AlreadyExists, match=r'add address 10\.9\.0\.1/24 to interface "here"'):
        wanted = wire.AddAddress(link="here", address="10.9.0.1/24")
        links.add_address(wire.AddAddressRequest(place=HOST, address=wanted))
    route = wire.Route(destination="192.168.7.0/24", gateway="10.9.0.1", link="eth0")
    links.add_route(wire.AddRouteRequest(place=LAB, route=wire.AddRoute(route=route)))
    assert route in links.list_routes(wire.ListRoutesRequest(place=LAB)).routes
    inside = ("nsenter", f"--net={_path(connection)}")
    run(*inside, "busybox", "ping", "-c", "1", "-W", "5", "192.168.7.1")
    (stats,) = links.stats(wire.LinkStatsRequest(place=LAB, name="eth0")).stats
    assert stats.name == "eth0" and stats.counters.tx_packets and stats.counters.rx_bytes
    shown = links.inspect(wire.InspectPlaceRequest(place=LAB, sysctls=["net.ipv4.ip_forward"]))
    assert [each.name for each in shown.links] == ["lo", "eth0"]
    assert "10.9.0.2/24" in shown.links[1].addresses and route in shown.routes
    assert shown.sysctls["net.ipv4.ip_forward"] in ("0", "1")
    assert next(each.address for each in shown.neighbours if each.link == "eth0") == "10.9.0.1"
    links.delete_route(wire.DeleteRouteRequest(place=LAB, route=wire.DeleteRoute(route=route)))
    assert route not in links.list_routes(wire.ListRoutesRequest(place=LAB)).routes
    gone = wire.DeleteAddress(link="eth0", address="10.9.0.2/24")
    links.delete_address(wire.DeleteAddressRequest(place=LAB, address=gone))
    link = links.get(wire.GetLinkRequest(place=LAB, name="eth0")).link
    assert "10.9.0.2/24" not in link.addresses
    links.delete(wire.DeleteLinkRequest(place=HOST, link=wire.DeleteLink(name="here")))


def _lab_whole() -> list[wire.Operation]:
    rule = wire.Rule(priority=700, table=77, source="10.7.0.0/24")
    return [
        wire.Operation(add_link=wire.AddLink(name="br7", kind="bridge", up=True)),
        wire.Operation(add_address=wire.AddAddress(link="br7", address="10.7.0.1/24")),
        wire.Operation(
            add_link=wire.AddLink(
                name="v7", kind="veth", peer="eth0", peer_place=LAB, master="br7", up=True
            )
        ),
        wire.Operation(place=LAB, set_link=wire.SetLink(name="eth0", mtu=1400, up=True)),
        wire.Operation(place=LAB, add_address=wire.AddAddress(link="eth0", address="10.7.0.2/24")),
        wire.Operation(
            place=LAB,
            add_route=wire.AddRoute(route=wire.Route(destination="0.0.0.0/0", gateway="10.7.0.1")),
        ),
        wire.Operation(
            add_neighbour=wire.AddNeighbour(link="br7", address="10.7.0.9", mac="02:00:00:00:00:09")
        ),
        wire.Operation(add_rule=wire.AddRule(rule=rule)),
        wire.Operation(place=LAB, set_sysctl=wire.SetSysctl(name="net.ipv4.ip_forward", value="1")),
    ]


def test_a_list_applies_whole_or_not_at_all(connection: Connection) -> None:
    links, before = connection.links, snapshot()
    inside = links.inspect(wire.InspectPlaceRequest(place=LAB, sysctls=["net.ipv4.ip_forward"]))
    bad = wire.Operation(place=LAB, set_link=wire.SetLink(name="gone", up=True))
    for last in (bad, wire.Operation()):
        with pytest.raises(OrlopError) as told:
            links.apply(wire.ApplyRequest(place=HOST, operations=[*_lab_whole(), last]))
        assert 'change interface "gone" in' in str(told.value) or "operation 10 of 10" in str(
            told.value
        )
        assert snapshot() == before
        after = links.inspect(wire.InspectPlaceRequest(place=LAB, sysctls=["net.ipv4.ip_forward"]))
        assert (after.routes, after.rules, after.sysctls) == (
            inside.routes,
            inside.rules,
            inside.sysctls,
        )
        assert [each.name for each in after.links] == ["lo"]
    links.apply(wire.ApplyRequest(place=HOST, operations=_lab_whole()))
    ping = ("busybox", "ping", "-c", "1", "-W", "5", "10.7.0.1")
    run("nsenter", f"--net={_path(connection)}", *ping)
    shown = links.inspect(wire.InspectPlaceRequest(place=HOST))
    assert [(each.priority, each.table, each.family) for each in shown.rules] == [(700, 77, 4)]
    assert ("10.7.0.9", True) in [(each.address, each.permanent) for each in shown.neighbours]
    undo = [
        wire.Operation(delete_rule=wire.DeleteRule(rule=shown.rules[0])),
        wire.Operation(delete_link=wire.DeleteLink(name="v7")),
        wire.Operation(delete_link=wire.DeleteLink(name="br7")),
    ]
    links.apply(wire.ApplyRequest(place=HOST, operations=undo))
    assert snapshot() == before


def test_in_a_container_that_runs(daemon: Networked, connection: Connection) -> None:
    daemon.box("box", "sleep", "1000")
    place = wire.Place(container_id="box")
    cable = wire.AddLink(name="own0", kind="veth", peer="own1", up=True)
    connection.links.create(wire.CreateLinkRequest(place=place, link=cable))
    assert "own1" in daemon.within("box", "ip", "link")
    assert _names(connection, place) == {"lo", "eth0", "own0", "own1"}
    daemon.orlop("rm", "-f", "box")
    with pytest.raises(NotFound, match='running task of container "box"'):
        _names(connection, place)


def _refusals() -> list[tuple[type[OrlopError], str, Callable[[Connection], object]]]:
    def make(**fields: object) -> Callable[[Connection], object]:
        link = wire.AddLink(**fields)  # type: ignore[arg-type]
        return lambda c: c.links.create(wire.CreateLinkRequest(place=LAB, link=link))

    def look(place: wire.Place) -> Callable[[Connection], object]:
        return lambda c: c.links.list(wire.ListLinksInRequest(place=place))

    return [
        (InvalidArgument, '"aaaaaaaaaaaaaaaa" is longer than 15', make(name="a" * 16, kind="veth")),
        (InvalidArgument, 'kind "ring" is none of', make(name="a", kind="ring")),
        (AlreadyExists, 'add bridge "lo" in network namespace', make(name="lo", kind="bridge")),
        (NotFound, 'add macvlan "a"', make(name="a", kind="macvlan", parent="gone")),
        (InvalidArgument, 'add bridge "a"', make(name="a", kind="bridge", mac="nonsense")),
        (InvalidArgument, "no network namespace is said", look(wire.Place())),
        (InvalidArgument, "no network namespace is said", look(wire.Place(host=False))),
        (InvalidArgument, "no absolute path", look(wire.Place(path="etc/passwd"))),
        (InvalidArgument, '"/etc/passwd" is no network', look(wire.Place(path="/etc/passwd"))),
        (InvalidArgument, "is no network", look(wire.Place(path="/proc/self/ns/mnt"))),
        (NotFound, "/nowhere", look(wire.Place(path="/nowhere"))),
        (NotFound, 'network namespace "none"', look(wire.Place(netns="none"))),
        (NotFound, 'container "none"', look(wire.Place(container_id="none"))),
    ]


def test_bad_input_is_refused_by_name(connection: Connection, tmp_path: Path) -> None:
    before = snapshot()
    for kind, text, call in _refusals():
        with pytest.raises(kind) as told:
            call(connection)
        assert text in str(told.value)
    fifo = tmp_path / "fifo"
    run("mkfifo", str(fifo))
    with pytest.raises(InvalidArgument, match="is no network namespace"):
        _names(connection, wire.Place(path=str(fifo)))
    moves = wire.MoveLinkRequest(place=LAB, link=wire.MoveLink(name="lo"))
    with pytest.raises(InvalidArgument, match='where interface "lo" is to move'):
        connection.links.move(moves)
    with pytest.raises((InvalidArgument, FailedPrecondition), match='move interface "lo"'):
        moves.link.to.host = True
        connection.links.move(moves)
    assert _names(connection, LAB) == {"lo"} and snapshot() == before
