"""A host that was no router: it forwards for containers, and is none for anybody else by that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.network import Kernel
from orlop.network.forwarding import Forwarding
from tests.daemon_fixture import Orlopd
from tests.integration.network.lab import Host, Lab, forward, prepare_iptables, run
from tests.integration.network.networked import Networked, fetch

_ADVERTISE = """
import socket, struct, sys
index = socket.if_nametoindex("eth0")
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sending:
    sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, int(sys.argv[1]), 0, 0)
    sending.sendto(advertisement, ("ff02::1", 0, 0, index))
"""
PORTS = [{"hostPort": 8080, "containerPort": 80}]


def _reaches(host: Host, address: str) -> bool:
    return host.run("busybox", "ping", "-c1", "-W1", address, check=False).returncode == 0


def _beside(lab: Lab, number: int, link: str) -> Host:
    """A host in a network of its own, whose router we would be: .1 is us, .2 is it."""
    made = lab.neighbour(f"192.168.{number}.1/24", f"192.168.{number}.2/24", link)
    for address in (f"fd{number}::1/64", "fe80::1/64"):  # by which a router asks for neighbours
        run("ip", "addr", "add", address, "dev", link, "nodad")
    made.run("ip", "addr", "add", f"fd{number}::2/64", "dev", "eth0", "nodad")
    made.run("ip", "route", "add", "default", "via", f"192.168.{number}.1")
    made.run("ip", "-6", "route", "add", "default", "via", f"fd{number}::1")
    return made


@contextmanager
def _running(firewall: str, archive: Path) -> Iterator[Networked]:
    made = Networked(firewall=firewall)
    try:
        made.start()
        made.ctr("images", "import", str(archive))
        yield made
        made.prune()
        made.close()
    finally:
        made.discard()


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
@pytest.mark.slow
def test_the_first_container_makes_no_router(
    lab: Lab, busybox_archive: Path, firewall: str
) -> None:
    if firewall == "iptables":
        prepare_iptables()
    forward("0")
    near, far = _beside(lab, 77, "wire"), _beside(lab, 78, "wire2")
    ways = ((near, "192.168.78.2"), (near, "fd78::2"), (far, "192.168.77.2"), (far, "fd77::2"))

    def passing() -> list[bool]:
        with ThreadPoolExecutor(len(ways)) as pool:
            return list(pool.map(lambda way: _reaches(*way), ways))

    with _running(firewall, busybox_archive) as daemon:
        daemon.create_network("six", ipv6=True)
        daemon.box("web", networks=[{"network": "six"}], ports=PORTS)
        for who, four, six in ((near, "192.168.77", "fd77"), (far, "192.168.78", "fd78")):
            assert fetch(f"http://{four}.1:8080", who) == "web"
            assert fetch(f"http://[{six}::1]:8080", who) == "web"
            daemon.within("web", "ping", "-c1", "-W20", f"{four}.2")
            daemon.within("web", "ping", "-6", "-c1", "-W20", f"{six}::2")
        assert not any(passing())
        _others_containers_are_their_own_affair(daemon, lab, far, firewall)
        daemon.prune()
        assert not any(passing())
        _flush(firewall)  # which takes all there is now: nobody is in a network
        daemon.wait_for(lambda: not any(passing()), 30)
        daemon.restart()
        daemon.box("again", "sleep", "1000")
        daemon.within("again", "ping", "-c1", "-W20", "192.168.78.2")
        assert not any(passing())
        daemon.prune()
        daemon.stop()
        with (daemon.folder / "config.toml").open("a") as config:
            config.write("router = true\n")
        daemon.start()
        daemon.wait_for(lambda: all(passing()))
    assert "orlop" not in run("nft", "list", "ruleset").stdout.lower()


def _flush(firewall: str) -> None:
    if firewall == "nftables":
        run("nft", "flush", "ruleset")
        return
    for program in ("iptables", "ip6tables"):
        run(program, "-F")


def _others_containers_are_their_own_affair(
    daemon: Networked, lab: Lab, far: Host, firewall: str
) -> None:
    """Those whose bridge has come later, as that of a Docker that is started then."""
    guest = lab.neighbour("192.168.90.1/24", "192.168.90.2/24", "later")
    guest.run("ip", "route", "add", "default", "via", "192.168.90.1")
    run("ip", "link", "add", "later0", "type", "bridge")
    run("ip", "addr", "flush", "dev", "later")
    run("ip", "link", "set", "later", "master", "later0")
    run("ip", "addr", "add", "192.168.90.1/24", "dev", "later0")
    run("ip", "link", "set", "later0", "up")
    rules = [("FORWARD", way, "later0", "-j", "ACCEPT") for way in ("-i", "-o")]
    if firewall == "iptables":  # where what they say comes first
        assert not _reaches(guest, "192.168.78.2")
        for each in rules:
            run("iptables", "-I", *each)
    daemon.wait_for(lambda: _reaches(guest, "192.168.78.2") and _reaches(far, "192.168.90.2"))
    for each in rules if firewall == "iptables" else ():
        run("iptables", "-D", *each)


def test_a_router_stays_one(lab: Lab, busybox_archive: Path) -> None:
    near, far = _beside(lab, 77, "wire"), _beside(lab, 78, "wire2")
    with _running("nftables", busybox_archive) as daemon:
        daemon.create_network("six", ipv6=True)
        daemon.box("web", networks=[{"network": "six"}])
        for who, address in ((near, "192.168.78.2"), (far, "fd77::2")):
            daemon.wait_for(lambda who=who, address=address: _reaches(who, address))  # type: ignore[misc]
    assert "orlop" not in run("nft", "list", "ruleset").stdout


def test_a_router_by_the_switches_of_its_interfaces_stays_one(
    lab: Lab, busybox_archive: Path
) -> None:
    """As systemd-networkd makes it, which leaves that of all alone."""
    forward("0")
    near, _ = _beside(lab, 77, "wire"), _beside(lab, 78, "wire2")
    for link in ("wire", "wire2"):
        run("sysctl", "-qw", f"net.ipv4.conf.{link}.forwarding=1")
    assert run("sysctl", "-n", "net.ipv4.ip_forward").stdout == "0\n"
    Orlopd.wait_for(lambda: _reaches(near, "192.168.78.2"))
    with _running("nftables", busybox_archive) as daemon:
        daemon.create_network("six", ipv6=True)
        daemon.box("web", networks=[{"network": "six"}])
        daemon.wait_for(lambda: _reaches(near, "192.168.78.2"))
        assert not _reaches(near, "fd78::2")  # by IPv6 it was none
        told = daemon.log.read_text()
        assert "forwards IPv6 for containers alone" in told
        assert "forwards IPv4 for containers alone" not in told


def test_an_interface_that_is_a_router_by_its_own_switch_stays_deaf(
    kernel: Kernel, tmp_path: Path
) -> None:
    forward("0")
    for name, forwards in (("plain0", "0"), ("router0", "1")):
        run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        conf = f"net.ipv6.conf.{name}"
        run("sysctl", "-qw", f"{conf}.accept_ra=1", f"{conf}.forwarding={forwards}")
    Forwarding(kernel, tmp_path / "memory").open([6], lambda: None)
    heard = [run("sysctl", "-n", f"net.ipv6.conf.{each}.accept_ra").stdout.strip()
             for each in ("plain0", "router0")]  # fmt: skip
    assert heard == ["2", "1"]


def test_the_way_out_that_a_router_has_told_stays(lab: Lab, busybox_archive: Path) -> None:
    """By IPv6, of which a router itself hears no others."""
    forward("0")
    router = _beside(lab, 77, "wire")
    router.run("ip", "addr", "add", "fe80::2/64", "dev", "eth0", "nodad")
    run("sysctl", "-qw", "net.ipv6.conf.wire.accept_ra=1")

    def advertise(seconds: int) -> None:
        router.run(sys.executable, "-c", _ADVERTISE, str(seconds))

    def has_way_out() -> bool:
        return "default via fe80::2" in run("ip", "-6", "route").stdout

    with _running("nftables", busybox_archive) as daemon:
        advertise(1800)
        daemon.wait_for(has_way_out)
        made = daemon.create_network("six", ipv6=True)
        daemon.box("web", networks=[{"network": "six"}])
        assert run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout == "1\n"
        assert has_way_out()
        advertise(0)  # and it is still listened to
        daemon.wait_for(lambda: not has_way_out())
        accepted = run("sysctl", "-n", f"net.ipv6.conf.{made.bridge}.accept_ra").stdout
        assert accepted == "0\n"  # but not to containers
