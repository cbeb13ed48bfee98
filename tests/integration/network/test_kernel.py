"""The library: operations in namespaces, whole or not at all; the worker that does them."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from orlop.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
    Unimplemented,
)
from orlop.network import Kernel, PinnedNamespaces
from orlop.network.operations import (
    AddAddress,
    AddLink,
    AddNeighbour,
    AddRoute,
    AddRule,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    DeleteRule,
    MoveLink,
    Route,
    Rule,
    SetLink,
    SetSysctl,
)
from tests.daemon_fixture import Orlopd
from tests.integration.network.lab import Lab, run, snapshot


def test_packets_go_from_one_namespace_to_another(kernel: Kernel, lab: Lab) -> None:
    host = lab.host()
    before = snapshot()
    kernel.apply(
        AddLink(name="here", kind="veth", peer="there", peer_ns=host.ns, up=True, mtu=1300),
        AddAddress(link="here", address="10.9.0.1/24"),
        AddAddress(link="here", address="fd09::1/64"),
        AddAddress(ns=host.ns, link="there", address="10.9.0.2/24"),
        AddAddress(ns=host.ns, link="there", address="fd09::2/64"),
        SetLink(ns=host.ns, name="there", up=True),
        AddRoute(ns=host.ns, route=Route(destination="0.0.0.0/0", gateway="10.9.0.1")),
    )
    host.run("busybox", "ping", "-c", "1", "-W", "5", "10.9.0.1")
    host.run("busybox", "ping", "-6", "-c", "1", "-W", "5", "fd09::1")
    (link,) = [each for each in kernel.links() if each.name == "here"]
    assert (link.kind, link.up, link.mtu) == ("veth", True, 1300)
    assert {"10.9.0.1/24", "fd09::1/64"} <= set(link.addresses)
    assert link.counters.rx_packets > 0 and link.counters.tx_bytes > 0
    routes = kernel.routes(host.ns)
    assert Route(destination="0.0.0.0/0", gateway="10.9.0.1", link="there") in routes
    kernel.apply(DeleteLink(name="here"))
    assert snapshot() == before
    assert [each.name for each in kernel.links(host.ns)] == ["lo"]


def test_a_list_that_fails_leaves_all_as_it_was(kernel: Kernel, pins: PinnedNamespaces) -> None:
    ns = str(pins.create("test", "one"))
    kernel.apply(SetSysctl(name="net.ipv4.ip_forward", value="0"))
    before = snapshot()
    with pytest.raises(NotFound) as told:
        kernel.apply(
            AddLink(name="br7", kind="bridge", up=True, alias="for a test"),
            AddAddress(link="br7", address="10.7.0.1/24"),
            AddLink(name="v7", kind="veth", peer="eth0", peer_ns=ns, master="br7"),
            SetSysctl(name="net.ipv4.ip_forward", value="1"),
            AddRoute(route=Route(destination="10.8.0.0/16", gateway="10.7.0.9")),
            SetLink(ns=ns, name="eth0", rename="eth9", up=True),
            AddAddress(ns=ns, link="gone", address="10.7.0.2/24"),
        )
    assert str(told.value) == (
        f'add address 10.7.0.2/24 to interface "gone" in network namespace "{ns}": '
        "no such device (ENODEV): not found"
    )
    assert snapshot() == before
    assert [each.name for each in kernel.links(ns)] == ["lo"]
    assert kernel.sysctl("net.ipv4.ip_forward") == "0"


def test_every_kind_of_interface_that_this_kernel_has(kernel: Kernel, lab: Lab) -> None:
    before = snapshot()
    kernel.apply(
        AddLink(name="br0", kind="bridge", up=True, mac="02:00:00:00:00:07"),
        AddLink(name="m0", kind="macvlan", parent="br0", mode="bridge", up=True),
        AddLink(name="vx0", kind="vxlan", id=42, remote="10.1.2.3", port=4789, master="br0"),
        AddLink(name="tap0", kind="tap", master="br0", up=True),
        AddLink(name="tun0", kind="tun", mtu=1280),
        AddLink(name="br0", kind="bridge", exist_ok=True),
    )
    found = {each.name: each for each in kernel.links()}
    kinds = {name: each.kind for name, each in found.items()}
    assert kinds["br0"] == "bridge" and kinds["m0"] == "macvlan" and kinds["vx0"] == "vxlan"
    assert kinds["tap0"] == kinds["tun0"] == "tun"
    assert found["br0"].mac == "02:00:00:00:00:07"
    assert found["tap0"].master == found["vx0"].master == "br0" and found["tap0"].up
    assert found["tun0"].mtu == 1280
    with pytest.raises(AlreadyExists, match="where bridge is"):
        kernel.apply(AddLink(name="br0", kind="macvlan", parent="m0", exist_ok=True))
    kernel.apply(*(DeleteLink(name=name) for name in ("m0", "vx0", "tap0", "tun0", "br0")))
    assert snapshot() == before


@pytest.mark.parametrize("kind", ["dummy", "vlan", "ipvlan"])
def test_a_kind_that_the_kernel_lacks_is_told_so_or_works(kernel: Kernel, kind: str) -> None:
    kernel.apply(AddLink(name="br0", kind="bridge"))
    try:
        kernel.apply(AddLink(name="x0", kind=kind, parent="" if kind == "dummy" else "br0", id=3))
    except Unimplemented as error:
        assert f'add {kind} "x0" in the daemon\'s network namespace' in str(error)
        assert "(EOPNOTSUPP)" in str(error) or "(ENOTSUP)" in str(error)
    else:
        (found,) = [each for each in kernel.links() if each.name == "x0"]
        assert found.kind == kind


def test_an_interface_moves_out_and_back(kernel: Kernel, pins: PinnedNamespaces, lab: Lab) -> None:
    ns = str(pins.create("test", "one"))
    kernel.apply(AddLink(name="a", kind="veth", peer="b"), MoveLink(name="a", to=ns, rename="eth0"))
    assert "a" not in {each.name for each in kernel.links()}
    assert {each.name for each in kernel.links(ns)} == {"lo", "eth0"}
    kernel.apply(MoveLink(ns=ns, name="eth0", to="", rename="c"))
    assert {"b", "c"} <= {each.name for each in kernel.links()}
    with pytest.raises(NotFound):  # and what was moved comes back when the rest fails
        kernel.apply(MoveLink(name="c", to=ns, rename="x"), SetLink(ns=ns, name="no", up=True))
    assert {"b", "c"} <= {each.name for each in kernel.links()}


def test_neighbours_rules_and_routes_come_and_go(kernel: Kernel, lab: Lab) -> None:
    kernel.apply(
        AddLink(name="br0", kind="bridge", up=True),
        AddAddress(link="br0", address="10.3.0.1/24"),
    )
    before = snapshot()
    route = Route(destination="10.4.0.0/16", gateway="10.3.0.2", link="br0", table=77, metric=5)
    rules = [
        Rule(priority=700, table=77, source="10.3.0.0/24"),
        Rule(priority=701, table=77, mark=9, family=6),
    ]
    kernel.apply(
        AddNeighbour(link="br0", address="10.3.0.2", mac="02:00:00:00:00:01"),
        AddRoute(route=route),
        *(AddRule(rule=rule) for rule in rules),
    )
    assert route in kernel.routes()
    assert kernel.rules() == rules
    (found,) = kernel.neighbours()
    assert (found.address, found.mac, found.permanent) == ("10.3.0.2", "02:00:00:00:00:01", True)
    kernel.apply(
        *(DeleteRule(rule=rule) for rule in rules),
        DeleteRoute(route=route),
        DeleteNeighbour(link="br0", address="10.3.0.2"),
    )
    assert snapshot() == before
    kernel.apply(DeleteAddress(link="br0", address="10.3.0.1/24"))
    with pytest.raises(NotFound, match=r"cannot assign requested address \(EADDRNOTAVAIL\)"):
        kernel.apply(DeleteAddress(link="br0", address="10.3.0.1/24"))


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (AddLink(name="a" * 16, kind="bridge"), "longer than 15 bytes"),
        (AddLink(name="a/b", kind="bridge"), '"a/b" can be no name'),
        (AddLink(name="a", kind="token ring"), 'kind "token ring" is none of veth'),
        (AddLink(name="a", kind="macvlan", parent="lo", mode="l2"), 'mode "l2" is none of private'),
        (AddLink(name="a", kind="ipvlan", parent="lo", mode="x"), 'mode "x" is none of l2, l3'),
        (SetLink(name="lo", rename=".."), "can be no name"),
        (AddAddress(link="lo", address="10.0.0.300/8"), "10.0.0.300/8"),
        (AddRoute(route=Route(destination="10.0.0.1/8", link="lo")), "has host bits set"),
        (SetSysctl(name="kernel.panic", value="1"), "invalid argument"),
        (SetSysctl(name="net/../kernel/panic", value="1"), "invalid argument"),
    ],
)
def test_bad_input_is_refused(kernel: Kernel, operation: AddLink, text: str) -> None:
    before = snapshot()
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        kernel.apply(operation)
    assert snapshot() == before


def test_nothing_but_deletions_follows_a_deletion(kernel: Kernel) -> None:
    with pytest.raises(InvalidArgument, match="cannot be undone"):
        kernel.apply(DeleteLink(name="x", missing_ok=True), AddLink(name="x", kind="bridge"))
    kernel.apply(DeleteLink(name="x", missing_ok=True), DeleteLink(name="y", missing_ok=True))


def test_pins_come_and_go(kernel: Kernel, pins: PinnedNamespaces) -> None:
    path = pins.create("test", "one")
    assert pins.names("test") == ["one"]
    (lo,) = kernel.links(str(path))
    assert lo.up and "127.0.0.1/8" in lo.addresses
    with pytest.raises(AlreadyExists, match='network namespace "one"'):
        pins.create("test", "one")
    (path.parent / "half").touch()  # as a crash leaves it
    assert pins.names("test") == ["one"]
    pins.create("test", "half")
    assert pins.names("test") == ["half", "one"]
    pins.delete("test", "half")
    pins.delete("test", "one")
    assert not path.parent.exists()
    with pytest.raises(NotFound, match='network namespace "one"'):
        pins.delete("test", "one")
    for name in ("..", "a/b", ""):
        with pytest.raises(InvalidArgument):
            pins.create("test", name)
    with pytest.raises(NotFound, match=re.escape(f'list links in network namespace "{path}"')):
        kernel.links(str(path))


def test_a_worker_that_died_is_replaced(kernel: Kernel) -> None:
    kernel.keep = True  # it must not have ended by itself
    kernel.links()
    first = kernel.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    try:
        kernel.links()
    except Unavailable as error:
        assert f"network worker {first} died" in str(error)
    kernel.keep = False
    kernel.links()
    assert kernel.pid != first


def test_an_idle_worker_ends_unless_it_is_kept(kernel: Kernel) -> None:
    kernel.keep = True
    kernel.links()
    kept = kernel.pid
    assert kept is not None
    kernel.keep = False
    kernel.links()
    assert kernel.pid == kept
    Orlopd.wait_for(lambda: not Path(f"/proc/{kept}").exists())
    assert kernel.links()
    assert kernel.pid not in (None, kept)


def test_many_at_once(kernel: Kernel) -> None:
    before = snapshot()
    problems: list[OrlopError] = []

    def come_and_go(number: int) -> None:
        try:
            for _ in range(10):
                kernel.apply(AddLink(name=f"b{number}", kind="bridge", up=True))
                kernel.apply(DeleteLink(name=f"b{number}"))
        except OrlopError as error:
            problems.append(error)

    threads = [threading.Thread(target=come_and_go, args=(n,)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not problems
    assert snapshot() == before


def test_netfilter_runs_whole_or_not_at_all(kernel: Kernel) -> None:
    kernel.filter("add table inet one; add chain inet one c")
    assert "chain c" in kernel.filter("list table inet one")
    with pytest.raises(OrlopError, match="nftables refuses"):
        kernel.filter("add table inet two; add rule inet two missing accept")
    assert "two" not in run("nft", "list", "tables").stdout
    kernel.filter("delete table inet one")
    assert run("nft", "list", "ruleset").stdout == ""
