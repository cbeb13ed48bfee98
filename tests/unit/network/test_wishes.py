"""What containers' labels say, and the files that follow from it."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing, suppress
from typing import Any

import msgspec
import pytest

from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.fork.client import ForkServer
from orlop.network import files, resolvconf, wishes
from orlop.network.loopback import Loopback
from orlop.network.model import Port, Wish
from orlop.network.ports import HostPorts
from orlop.network.wishes import Wishes


def test_labels_say_it_or_nothing() -> None:
    assert wishes.of("box", {}) is None
    text = json.dumps({"mode": "networks", "networks": [{"network": "a", "aliases": ["x"]}]})
    found = wishes.of("box", {wishes.LABEL: text})
    assert found == Wishes("networks", (Wish(network="a", aliases=("x",)),))


@pytest.mark.parametrize(
    "text",
    ["no", "[]", '{"mode": "net"}', "{}", '{"mode": "host", "dns": 1}', '{"mode": "\ud800"}'],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match='container "box"'):
        wishes.of("box", {wishes.LABEL: text})


def test_ports_are_those_of_cni() -> None:
    text = '[{"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0"}]'
    assert wishes.ports("box", {wishes.PORTS_LABEL: text}) == [
        Port(container_port=80, host_port=8080)
    ]
    assert wishes.ports("box", {}) == []


@pytest.mark.parametrize(
    "mapping",
    [
        {"containerPort": 0},
        {"containerPort": 70000},
        {"containerPort": 65535, "hostPort": 80, "count": 2},
        {"containerPort": 80, "count": 2},
        {"containerPort": 80, "hostPort": 80, "count": -1},
        {"containerPort": 80, "protocol": "icmp"},
        {"containerPort": 80, "hostIP": "here"},
        {"containerPort": 80, "hostIP": "fe80::1%eth0"},
        {"hostPort": 80},
        {"containerPort": 80, "hostPort": 90, "hostPortEnd": 89},
        {"containerPort": 80, "hostPortEnd": 89},
        {"containerPort": 80, "hostPort": 80, "hostPortEnd": 89, "count": 2},
    ],
)
def test_bad_ports_are_refused(mapping: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        wishes.ports("box", {wishes.PORTS_LABEL: json.dumps([mapping])})


def test_a_taken_port_is_told_and_a_held_one_is_taken() -> None:
    ports = HostPorts(Loopback(ForkServer()), lambda *_: "")  # which nobody connects to
    with closing(ports):
        (held,) = ports.hold(("a", "b"), [Port(container_port=80)], (4,))
        assert held.host_port
        wanted = Port(container_port=1, host_port=held.host_port)
        with pytest.raises(FailedPrecondition, match=f"port {held.host_port}/tcp of the host is t"):
            ports.hold(("a", "c"), [wanted], (4,))
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", held.host_port))
        ports.release(("a", "b"))
        assert ports.hold(("a", "c"), [wanted], (4,)) == [wanted]
        with pytest.raises(FailedPrecondition, match="cannot assign"):
            far = Port(container_port=1, host_port=held.host_port, host_address="192.0.2.77")
            ports.hold(("a", "d"), [far], (4,))


def test_a_free_port_is_free_with_each_version_of_ip_and_where_it_is_wished() -> None:
    with ExitStack() as stack:
        ports = stack.enter_context(closing(HostPorts(Loopback(ForkServer()), lambda *_: "")))
        others = {}
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            others[version] = stack.enter_context(socket.socket(family))
        others[6].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        first = _free_in_a_row(3)
        others[4].bind(("127.0.0.1", first))
        others[6].bind(("::1", first + 1))
        wanted = Port(container_port=80, host_port=first, host_port_end=first + 2)
        (held,) = ports.hold(("a", "b"), [wanted], (4, 6))
        assert held == Port(container_port=80, host_port=first + 2)
        where = f"port {first}-{first + 2}/tcp of the host: none is free"
        with pytest.raises(FailedPrecondition, match=where):
            ports.hold(("a", "c"), [wanted], (4, 6))
        ports.release(("a", "b"))
        assert ports.hold(("a", "c"), [wanted], (4, 6)) == [held]


def _free_in_a_row(count: int) -> int:
    """The first of so many ports that nobody has."""
    for first in range(30000, 32000, count):
        with ExitStack() as stack, suppress(OSError):
            for number in range(first, first + count):
                for family in (socket.AF_INET, socket.AF_INET6):
                    tried = stack.enter_context(socket.socket(family))
                    if family == socket.AF_INET6:
                        tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    tried.bind(("", number))
            return first
    raise AssertionError("no ports are free")


def test_a_number_that_only_one_version_of_ip_has_free_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, left = HostPorts._bind, iter(range(3))

    def bind(*arguments: Any) -> Any:
        version, number = arguments[3:]
        if version == 6 and next(left, None) is not None:  # a program has it at all of [::] only
            with socket.socket(socket.AF_INET6) as other:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                with suppress(OSError):  # or somebody has it in truth
                    other.bind(("::", number))
                return real(*arguments)
        return real(*arguments)

    monkeypatch.setattr(HostPorts, "_bind", bind)
    with closing(HostPorts(Loopback(ForkServer()), lambda *_: "")) as ports:
        (held,) = ports.hold(("a", "b"), [Port(container_port=80)], (4, 6))
        assert held.host_port and next(left, None) is None


def test_ports_of_sctp_are_taken_too() -> None:
    """Whether or not this kernel has sockets for it."""
    with closing(HostPorts(Loopback(ForkServer()), lambda *_: "")) as ports:
        port = Port(container_port=80, protocol="sctp")
        (held,) = ports.hold(("a", "b"), [port], (4, 6))
        assert held.host_port
        for address in ("", "127.0.0.1", "::1"):
            wanted = msgspec.structs.replace(held, host_address=address)
            with pytest.raises(FailedPrecondition, match=f"port {held.host_port}/sctp of the host"):
                ports.hold(("a", "c"), [wanted], (4,))
        for number in (1, 2):
            ports.release(("a", "b"))
            asked = msgspec.structs.replace(held, host_address=f"127.0.0.{number}")
            assert ports.hold(("a", str(number)), [asked], (4,)) == [asked]


def test_an_address_of_the_host_has_one_name() -> None:
    with closing(HostPorts(Loopback(ForkServer()), lambda *_: "")) as ports:
        port = Port(container_port=80, protocol="udp", host_address="0:0::1")
        (held,) = ports.hold(("a", "b"), [port], (6,))
        assert held.host_address == "::1"


def test_hosts_has_the_container_and_what_was_added() -> None:
    wanted = Wishes("networks", hosts=("db:10.0.0.9", "up:host-gateway", "v6:[fd00::9]"))
    text = files.hosts("web", ["10.1.0.2", "fd00::2"], ["www", "web"], wanted, "10.1.0.1")
    lines = text.splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    for line in ("10.0.0.9\tdb", "10.1.0.1\tup", "fd00::9\tv6"):
        assert line in lines
    assert lines[-2:] == ["10.1.0.2\tweb www", "fd00::2\tweb www"]
    for bad in ("db", "db:", ":10.0.0.1", "a b:10.0.0.1", "db:host"):
        with pytest.raises(InvalidArgument, match="is not NAME:ADDRESS"):
            files.hosts("web", [], [], Wishes("none", hosts=(bad,)), "")


def test_resolv_conf_is_what_was_wished() -> None:
    wanted = Wishes(
        "host", dns=("10.0.0.53",), dns_search=("a.test", "b"), dns_options=("ndots:2",)
    )
    assert resolvconf.text(wanted, loopback=False) == (
        "nameserver 10.0.0.53\nsearch a.test b\noptions ndots:2\n"
    )
    for name in ("dns.test", "10.0.0.1%dns.test", "", "10.0.0.1 ", "%eth0"):
        assert not resolvconf.is_address(name)
    assert resolvconf.is_address("fe80::1%eth0") and resolvconf.is_address("10.0.0.53")
    for bad in (Wishes("host", dns=("dns.test",)), Wishes("host", dns_search=("a\nnameserver 1",))):
        with pytest.raises(InvalidArgument):
            resolvconf.text(bad, loopback=False)
