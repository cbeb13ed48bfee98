"""What an operation changes, and the kernel takes along, comes back when a later one fails."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

import pytest

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError
from orlop.network import Kernel
from orlop.network.operations import (
    AddLink,
    AddRoute,
    AddRule,
    AnyOperation,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRateLimit,
    DeleteRoute,
    DeleteRule,
    MoveLink,
    Route,
    Rule,
    SetLink,
    SetSysctl,
)
from tests.daemon_fixture import Orlopd
from tests.integration.network.lab import Host, Lab, run
from tests.patience import patient

_BAD = SetLink(name="gone", up=True)
_FURNISH = """
    echo 0 >/proc/sys/net/ipv4/ip_forward
    ip link add br0 type bridge
    ip link add xa type veth peer name xb
    for each in br0 xa xb; do ip link set $each addrgenmode none; done
    ip link set br0 up; ip link set xa up; ip link set xb master br0 up
    bridge link set dev xb hairpin on isolated on
    for each in 10.2.0.1/24 10.1.0.1/24 10.1.0.2/24 10.1.0.3/24; do ip addr add $each dev xa; done
    ip addr add fd01::1/64 dev xa nodad
    ip route add default via 10.1.0.7
    ip route add 10.9.0.0/16 via 10.1.0.9 metric 7 src 10.1.0.2 mtu 1200
    ip route add 10.9.0.0/16 via 10.2.0.9 metric 8
    ip route add 10.8.0.0/16 dev xa table 77
    ip -6 route add fd09::/64 via fd01::9 metric 30
    ip -6 route add fd09::/64 via fd01::9 metric 40
    ip -6 route add fd08::/64 nexthop via fd01::8 nexthop via fd01::9
    ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev xa
    tc qdisc add dev xa root tbf rate 3mbit burst 64k latency 100ms
    ip rule add from 10.1.0.0/24 iif xa table 77 priority 700
    ip rule add from 10.2.0.0/24 table 77 priority 700
    echo 2 >/proc/sys/net/ipv4/conf/xa/rp_filter
    echo 1 >/proc/sys/net/ipv4/conf/br0/forwarding
"""
_SHOW = """
    ip link; bridge -d link; ip addr | grep inet; ip neigh show nud permanent
    ip route show table all | grep -v multicast | sort; ip -6 route show table all | sort
    tc qdisc show dev xa; ip rule; ip -6 rule
    head -v /proc/sys/net/ipv?/conf/xa/[a-r]* /proc/sys/net/ipv?/conf/*/forwarding; true
"""
_CHANGES: dict[str, Callable[[Host], AnyOperation]] = {
    "down": lambda _: SetLink(name="xa", up=False),
    "another name": lambda _: SetLink(name="xa", up=False, rename="xc"),
    "mtu": lambda _: SetLink(name="xa", mtu=1000),
    "mac": lambda _: SetLink(name="xa", mac="02:00:00:00:00:77", alias="for a test"),
    "master": lambda _: SetLink(name="xb", master=""),
    "move": lambda host: MoveLink(name="xa", to=host.ns, rename="eth0"),
    "move a port": lambda host: MoveLink(name="xb", to=host.ns),
    "primary address": lambda _: DeleteAddress(link="xa", address="10.1.0.1/24"),
    "promoting address": lambda _: DeleteAddress(link="xa", address="10.1.0.1/24"),
    "secondary address": lambda _: DeleteAddress(link="xa", address="10.1.0.2/24"),
    "address of IPv6": lambda _: DeleteAddress(link="xa", address="fd01::1/64"),
    "route": lambda _: DeleteRoute(route=Route(destination="10.9.0.0/16")),
    "default route": lambda _: DeleteRoute(route=Route(destination="0.0.0.0/0")),
    "route of IPv6": lambda _: DeleteRoute(route=Route(destination="fd09::/64")),
    "one of two ways": lambda _: DeleteRoute(
        route=Route(destination="fd08::/64", gateway="fd01::8")
    ),
    "another route": lambda _: AddRoute(route=Route(destination="fd09::/64", gateway="fd01::9")),
    "neighbour": lambda _: DeleteNeighbour(link="xa", address="10.1.0.9"),
    "limit": lambda _: DeleteRateLimit(link="xa"),
    "rule": lambda _: DeleteRule(rule=Rule(priority=700, table=77)),
    "another rule": lambda _: AddRule(rule=Rule(priority=700, table=78)),
    "forwarding": lambda _: SetSysctl(name="net.ipv4.ip_forward", value="1"),
    "no IPv6": lambda _: SetSysctl(name="net.ipv6.conf.all.disable_ipv6", value="1"),
    "no IPv6 at one": lambda _: SetSysctl(name="net/ipv6/conf/xa/disable_ipv6", value="1"),
}


def _shown() -> str:
    return run("sh", "-c", _SHOW).stdout


def _becomes(before: str) -> None:
    """The kernel has a cable up, and routes by it, a moment after it was told to."""
    deadline = time.monotonic() + patient(30)
    while (now := _shown()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now.splitlines() == before.splitlines()


@pytest.fixture
def furnished(lab: Lab) -> str:
    """What is shown of two interfaces that have something of everything."""
    run("sh", "-ec", _FURNISH)
    Orlopd.wait_for(lambda: run("ip", "link").stdout.count("state UP") == 3)
    Orlopd.wait_for(lambda: " linkdown" not in _shown() and " tentative" not in _shown())
    return _shown()


@pytest.mark.parametrize("change", _CHANGES)
def test_what_was_changed_comes_back(kernel: Kernel, lab: Lab, furnished: str, change: str) -> None:
    promote = "0" if change == "primary address" else "1"
    run("sysctl", "-w", f"net.ipv4.conf.xa.promote_secondaries={promote}")
    before, host = _shown(), lab.host()
    for index, name in socket.if_nameindex():
        if name != "lo":  # the host that it moves to has others of these numbers
            host.run("ip", "link", "add", f"no{index}", "index", str(index), "type", "bridge")
    with pytest.raises(NotFound, match=r'change interface "gone" in .* \(ENODEV\): not found$'):
        kernel.apply(_CHANGES[change](host), _BAD)
    _becomes(before)
    kernel.apply(_CHANGES[change](host))
    assert _shown() != before  # there was something to bring back


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (SetLink(name="xa", mtu=1300, mac="02:00:00:00:00:77", rename="xb"), AlreadyExists),
        (SetLink(name="xa", mtu=1300, up=False, master="xb"), OrlopError),
        (SetLink(name="xa", up=False, mtu=1 << 30), InvalidArgument),
    ],
)
def test_an_operation_that_is_refused_half_way(
    kernel: Kernel, furnished: str, operation: SetLink, error: type[OrlopError]
) -> None:
    with pytest.raises(error) as told:
        kernel.apply(operation)
    assert "undoing" not in str(told.value)
    _becomes(furnished)


def test_one_that_moves_to_where_its_new_name_is_taken_comes_back(
    kernel: Kernel, lab: Lab, furnished: str
) -> None:
    host = lab.host()
    host.run("ip", "link", "add", "eth0", "type", "bridge")
    links = host.run("ip", "link").stdout
    for name in ("eth0", "lo"):
        with pytest.raises(AlreadyExists) as told:
            kernel.apply(MoveLink(name="xa", to=host.ns, rename=name))
        assert "undoing" not in str(told.value)
        _becomes(furnished)
    assert host.run("ip", "link").stdout == links
    host.run("ip", "link", "add", "xa", "type", "bridge")
    with pytest.raises(AlreadyExists):
        kernel.apply(MoveLink(name="xa", to=host.ns))  # it never leaves
    _becomes(furnished)


def test_a_neighbour_comes_back_that_the_kernel_has_found(kernel: Kernel, furnished: str) -> None:
    found = ("10.1.0.8", "lladdr", "02:00:00:00:00:08", "dev", "xa", "nud", "stale")
    run("ip", "neigh", "add", *found)
    with pytest.raises(NotFound):
        kernel.apply(DeleteNeighbour(link="xa", address="10.1.0.8"), _BAD)
    assert "02:00:00:00:00:08 STALE" in run("ip", "neigh", "show", "10.1.0.8").stdout


def test_a_limit_of_another_kind_is_none_of_ours(kernel: Kernel, furnished: str) -> None:
    run("tc", "qdisc", "add", "dev", "xb", "root", "pfifo", "limit", "7")
    with pytest.raises(NotFound, match=re.escape('take the limit of interface "xb" away in')):
        kernel.apply(DeleteRateLimit(link="xb"))
    assert "limit 7p" in run("tc", "qdisc", "show", "dev", "xb").stdout


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_one_of_another_program_is_not_taken_over(kernel: Kernel, lab: Lab, kind: str) -> None:
    """As a virtual machine leaves it that is not running at the moment."""
    run("ip", "tuntap", "add", "idle", "mode", kind)
    before = _links()
    with pytest.raises(AlreadyExists, match=f'add {kind} "idle" in'):
        kernel.apply(AddLink(name="idle", kind=kind, mtu=1234))
    other = "tap" if kind == "tun" else "tun"
    with pytest.raises(AlreadyExists, match=f'add {other} "idle", where {kind} is'):
        kernel.apply(AddLink(name="idle", kind=other, exist_ok=True))
    with pytest.raises(NotFound):
        kernel.apply(AddLink(name="idle", kind=kind, exist_ok=True), _BAD)
    assert _links() == before


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_nothing_stays_of_one_that_could_not_be_finished(
    kernel: Kernel, lab: Lab, kind: str
) -> None:
    before, host = _links(), lab.host()
    for ns in ("", host.ns):
        with pytest.raises(NotFound, match=f'add {kind} "new" in'):
            kernel.apply(AddLink(ns=ns, name="new", kind=kind, master="gone"))
    assert _links() == before and [each.name for each in kernel.links(host.ns)] == ["lo"]
    kernel.apply(AddLink(name="new", kind=kind, alias="of a test", up=True))
    shown = run("ip", "-d", "link", "show", "new").stdout
    assert f"tun type {kind}" in shown and "alias of a test" in shown and ",UP" in shown
    kernel.apply(DeleteLink(name="new"))


def _links() -> str:
    return run("ip", "-d", "link").stdout
