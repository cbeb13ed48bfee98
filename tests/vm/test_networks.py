"""Kinds of interfaces that a development machine's kernel may lack, with packets through them."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from orlop.network import Kernel
from orlop.network.model import Link
from orlop.network.operations import (
    AddAddress,
    AddLink,
    AddRoute,
    AnyOperation,
    DeleteLink,
    MoveLink,
    Route,
    SetLink,
)
from tests.integration.network.conftest import daemon, forks, kernel, lab, outside
from tests.integration.network.lab import Host, Lab, run, snapshot
from tests.integration.network.networked import Networked
from tests.patience import patient

__all__ = ["daemon", "forks", "kernel", "lab", "outside"]

HOME = "/proc/1/ns/net"
"""Where the machine's hardware is."""
ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
server.bind(("0.0.0.0", 80))
server.listen()
print(flush=True)
while True:
    client, _ = server.accept()
    client.sendall(client.recv(100).upper())
    client.close()
"""
ASK = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
client.settimeout(20)
client.connect((sys.argv[1], 9080))
client.sendall(b"heard")
print(client.recv(100).decode())
"""


def _reaches(host: Host, address: str) -> bool:
    ping = ("busybox", "ping", "-c", "1", "-w", str(int(patient(2))), address)
    # Thrice: before a carrier is there, the first may meet no queue.
    return any(host.run(*ping, check=False).returncode == 0 for _ in range(3))


def _at(host: Host, link: str, address: str) -> list[AnyOperation]:
    return [
        AddAddress(ns=host.ns, link=link, address=address),
        SetLink(ns=host.ns, name=link, up=True),
    ]


def _cable(kernel: Kernel, first: Host, second: Host) -> None:
    """Between the two, eth0 on both sides."""
    kernel.apply(
        AddLink(ns=first.ns, name="eth0", kind="veth", peer="eth0", peer_ns=second.ns, up=True),
        SetLink(ns=second.ns, name="eth0", up=True),
    )


def test_vlans_on_one_cable_are_apart(kernel: Kernel, lab: Lab) -> None:
    first, second = lab.host(), lab.host()
    _cable(kernel, first, second)
    for host, number in ((first, 1), (second, 2)):
        for vlan in (7, 8):
            name = f"eth0.{vlan}"
            kernel.apply(
                AddLink(ns=host.ns, name=name, kind="vlan", parent="eth0", id=vlan),
                *_at(host, name, f"10.{vlan}.0.{number}/24"),
            )
    assert _reaches(first, "10.7.0.2") and _reaches(first, "10.8.0.2")
    kernel.apply(DeleteLink(ns=second.ns, name="eth0.7"))
    kernel.apply(AddAddress(ns=second.ns, link="eth0.8", address="10.7.0.2/24"))
    assert not _reaches(first, "10.7.0.2")
    (found,) = [each for each in kernel.links(first.ns) if each.name == "eth0.7"]
    assert found.kind == "vlan" and found.counters.tx_packets


@pytest.mark.parametrize(
    ("kind", "mode"), [("macvlan", "bridge"), ("ipvlan", "l2"), ("ipvlan", "l3")]
)
def test_several_share_an_interface(kernel: Kernel, lab: Lab, kind: str, mode: str) -> None:
    """The parent is a dummy: what comes from one to the other goes through it in the kernel."""
    before = snapshot()
    kernel.apply(AddLink(name="base", kind="dummy", up=True))
    hosts = [lab.host(), lab.host()]
    for number, host in enumerate(hosts, 1):
        kernel.apply(
            AddLink(name=f"x{number}", kind=kind, parent="base", mode=mode),
            MoveLink(name=f"x{number}", to=host.ns, rename="eth0"),
            *_at(host, "eth0", f"10.4.0.{number}/24"),
        )
    assert _reaches(hosts[0], "10.4.0.2") and _reaches(hosts[1], "10.4.0.1")
    (found,) = [each for each in kernel.links(hosts[0].ns) if each.name == "eth0"]
    assert found.kind == kind
    kernel.apply(DeleteLink(name="base"))  # and all that is on it
    assert [each.name for each in kernel.links(hosts[0].ns)] == ["lo"]
    assert snapshot() == before


def test_a_tunnel_and_a_dummy_behind_it(kernel: Kernel, lab: Lab) -> None:
    first, second = lab.host(), lab.host()
    _cable(kernel, first, second)
    for host, here, there in ((first, 1, 2), (second, 2, 1)):
        kernel.apply(
            AddAddress(ns=host.ns, link="eth0", address=f"10.5.0.{here}/24"),
            AddLink(
                ns=host.ns, name="vx0", kind="vxlan", id=42, port=4789, parent="eth0",
                local=f"10.5.0.{here}", remote=f"10.5.0.{there}",
            ),
            *_at(host, "vx0", f"10.6.0.{here}/24"),
        )  # fmt: skip
    kernel.apply(
        AddLink(ns=second.ns, name="d0", kind="dummy"),
        *_at(second, "d0", "10.99.0.1/32"),
        AddRoute(ns=first.ns, route=Route(destination="10.99.0.0/24", gateway="10.6.0.2")),
    )
    assert _reaches(first, "10.6.0.2") and _reaches(first, "10.99.0.1")
    (found,) = [each for each in kernel.links(first.ns) if each.name == "vx0"]
    assert found.counters.tx_packets and found.counters.rx_packets


def test_hardware_moves_in_and_out(kernel: Kernel, lab: Lab) -> None:
    """Two cards on a cable; the kernel gives one back whose namespace has ended."""
    cards = [each.name for each in _hardware(kernel)]
    macs = sorted(each.mac for each in _hardware(kernel))
    hosts = [lab.host(), lab.host()]
    for number, (card, host) in enumerate(zip(cards, hosts, strict=True), 1):
        kernel.apply(
            MoveLink(ns=HOME, name=card, to=host.ns, rename="eth0"),
            *_at(host, "eth0", f"10.4.0.{number}/24"),
        )
    assert not _hardware(kernel)
    assert _reaches(hosts[0], "10.4.0.2") and _reaches(hosts[1], "10.4.0.1")
    kernel.apply(MoveLink(ns=hosts[0].ns, name="eth0", to=HOME, rename=cards[0]))
    (back,) = _hardware(kernel)
    assert back.name == cards[0] and not back.up and not back.addresses
    hosts[1].close()
    deadline = time.monotonic() + patient(20)
    while len(_hardware(kernel)) < len(cards):  # by which name, the kernel and udev decide
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sorted(each.mac for each in _hardware(kernel)) == macs


def _hardware(kernel: Kernel) -> list[Link]:
    return [each for each in kernel.links(HOME) if not each.kind and each.name != "lo"]


def test_a_line_that_is_slow_and_loses_packets(kernel: Kernel, lab: Lab) -> None:
    """By netem of the test's: what the kernel does to an interface is seen in its counters."""
    first, second = lab.host(), lab.host()
    _cable(kernel, first, second)
    kernel.apply(*_at(first, "eth0", "10.5.0.1/24"), *_at(second, "eth0", "10.5.0.2/24"))
    first.run("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "300ms")
    shown = first.run("busybox", "ping", "-c", "3", "-W", "30", "10.5.0.2").stdout
    assert all(float(each) >= 300 for each in re.findall(r"time=([\d.]+)", shown))
    first.run("tc", "qdisc", "change", "dev", "eth0", "root", "netem", "loss", "100%")
    dropped = _dropped(kernel, first)
    assert not _reaches(first, "10.5.0.2")
    assert "netem" in first.run("tc", "-s", "qdisc", "show", "dev", "eth0").stdout
    assert _dropped(kernel, first) >= dropped


def _dropped(kernel: Kernel, host: Host) -> int:
    (found,) = [each for each in kernel.links(host.ns) if each.name == "eth0"]
    return found.counters.tx_dropped


@pytest.mark.parametrize("daemon", ["nftables", "iptables"], indirect=True)
def test_a_published_port_of_sctp(daemon: Networked, outside: Host) -> None:
    ports = [{"hostPort": 9080, "containerPort": 80, "protocol": "sctp"}]
    daemon.box("box", "sleep", "10000", ports=ports)
    inside = ["nsenter", f"--net=/proc/{daemon.pid_of('box')}/ns/net"]
    with subprocess.Popen([*inside, "python3", "-c", ECHO], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline()
        try:
            assert outside.run("python3", "-c", ASK, "192.168.7.1").stdout == "HEARD\n"
            assert run("python3", "-c", ASK, "192.168.7.1").stdout == "HEARD\n"
        finally:
            server.kill()
