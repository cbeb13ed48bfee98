"""Containers as hosts of the network that the host is in: macvlan here, the rest in tests/vm."""

from __future__ import annotations

import json
import os
import threading

import pytest

from orlop.network import Kernel, PinnedNamespaces, uplink
from orlop.network.model import Endpoint, Network, Subnet
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, Lab, run, snapshot
from tests.integration.network.networked import Networked, fetch, refused
from tests.killing import kill

ON_THE_WIRE = ("--subnet", "192.168.7.0/24", "--gateway", "192.168.7.2", "-o", "parent=wire")


def create(daemon: Networked, *words: str) -> str:
    """What refuses a network, "" if it is made."""
    return daemon.orlop("network", "create", *words, check=False).stderr


def test_a_container_is_a_host_on_the_wire(daemon: Networked, outside: Host) -> None:
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "phys") == ""
    daemon.box("web", networks=[{"network": "phys", "ip": "192.168.7.50"}])
    daemon.box("near", networks=[{"network": "phys", "mac": "02:00:00:00:00:77"}])
    assert fetch("http://192.168.7.50", outside) == "web"  # no NAT, no published port
    assert daemon.within("near", "wget", "-qO-", "http://192.168.7.50").strip() == "web"
    routes = daemon.within("web", "ip", "route")
    assert "default via 192.168.7.2 dev eth0" in routes
    link = daemon.within("near", "ip", "link", "show", "eth0")
    assert "02:00:00:00:00:77" in link
    assert daemon.address_of("near") == "192.168.7.3"  # .1 is the host's, .2 the gateway
    outside.run("busybox", "ping", "-c1", "-W20", "192.168.7.3")
    neighbours = outside.run("ip", "neighbour").stdout
    assert "02:00:00:00:00:77" in neighbours
    assert refused("http://192.168.7.50")  # the host itself is apart from them
    assert "type bridge" not in run("ip", "-d", "link").stdout
    done = daemon.orlop("network", "rm", "phys", check=False)
    assert 'used by "near", "web"' in done.stderr


def test_the_neighbours_hear_who_has_an_address_now(daemon: Networked, outside: Host) -> None:
    """By themselves: they would ask the one who had it for as long as they remember."""
    six = ("--subnet", "fd77::/64", "--gateway", "fd77::2")
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, *six, "phys") == ""
    wish = {"network": "phys", "ip": "192.168.7.50", "ip6": "fd77::50"}
    daemon.box("first", "sleep", "1000", networks=[wish])

    def known() -> list[str]:
        lines = outside.run("ip", "neighbour", "show", "dev", "eth0").stdout.splitlines()
        found = [line.split() for line in lines]
        return [each[each.index("lladdr") + 1] for each in found if each[0] in wish.values()]

    for address in (wish["ip"], wish["ip6"]):
        outside.run("busybox", "ping", "-c1", "-W20", address)
    first = daemon.inspect("first").endpoints[0].mac
    assert known() == [first, first]
    daemon.orlop("rm", "-f", "first")
    daemon.wait_for(lambda: daemon.gone("first"))
    daemon.box("second", "sleep", "1000", networks=[wish])
    second = daemon.inspect("second").endpoints[0].mac
    assert second != first
    daemon.wait_for(lambda: known() == [second, second])


def test_addresses_are_none_of_those_of_others(daemon: Networked, outside: Host) -> None:
    ours = ("--ip-range", "192.168.7.8/29", "--aux-address", "printer=192.168.7.8")
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, *ours, "phys") == ""
    daemon.box("web", networks=[{"network": "phys"}])
    assert daemon.address_of("web") == "192.168.7.9"
    daemon.restart()
    (shown,) = json.loads(daemon.orlop("network", "inspect", "phys").stdout)
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "192.168.7.0/24",
            "Gateway": "192.168.7.2",
            "IPRange": "192.168.7.8/29",
            "AuxiliaryAddresses": {"printer": "192.168.7.8"},
        }
    ]
    taken = ("run", "--network", "phys", "--ip", "192.168.7.8", BUSYBOX, "true")
    assert "is taken" in daemon.orlop(*taken, check=False).stderr
    for words, text in (
        (("--ip-range", "10.9.0.0/28"), "a --ip-range is of a --subnet"),
        (("--subnet", "10.9.0.0/24", "--ip-range", "10.8.0.0/28"), "is no part of subnet"),
        (("--subnet", "10.9.0.0/24", "--ip-range", "fd00::/120"), "a --ip-range is of a --subnet"),
        (("--subnet", "10.9.0.0/24", "--aux-address", "10.9.0.2"), "is not NAME=ADDRESS"),
        (("--subnet", "10.9.0.0/24", "--aux-address", "a=fd00::2"), "of a --subnet"),
        (("--subnet", "10.9.0.0/24", "--aux-address", "a=10.8.0.2"), "none of a host in subnet"),
    ):
        assert text in create(daemon, *words, "other")


def test_they_know_each_other_s_names_by_their_files(daemon: Networked, outside: Host) -> None:
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "phys") == ""
    daemon.box("web", networks=[{"network": "phys", "aliases": ["www"]}])
    daemon.box("near", "sleep", "1000", networks=[{"network": "bridge"}, {"network": "phys"}])

    def knows(name: str, other: str) -> bool:
        ping = daemon.orlop("exec", name, "ping", "-c1", "-W2", other, check=False)
        return ping.returncode == 0

    for name in ("web", "www", "web.phys", "www.phys"):
        daemon.wait_for(lambda name=name: knows("near", name))  # type: ignore[misc]
    daemon.wait_for(lambda: knows("web", "near"))
    before = daemon.within("web", "cat", "/etc/hosts")
    assert "10.88." not in before  # that is by another network
    pid = daemon.pid_of("web")
    daemon.orlop("rename", "near", "close")
    daemon.wait_for(lambda: knows("web", "close"))
    daemon.kill9()
    kill(pid)
    daemon.start()
    daemon.wait_for(lambda: not knows("close", "web"))
    daemon.orlop("start", "web")
    daemon.wait_for(lambda: knows("close", "web"))
    daemon.within("close", "sh", "-c", "echo 10.1.1.1 mine >>/etc/hosts")
    daemon.orlop("network", "disconnect", "phys", "web")
    daemon.wait_for(lambda: not knows("close", "web"))
    daemon.wait_for(lambda: "close" not in daemon.within("web", "cat", "/etc/hosts"))
    daemon.wait_for(lambda: "orlop" not in daemon.within("close", "cat", "/etc/hosts"))
    left = daemon.within("close", "cat", "/etc/hosts")
    assert left.endswith("10.1.1.1 mine\n") and "localhost" in left


@pytest.mark.parametrize("mode", ["bridge", "passthru"])
def test_a_start_while_the_last_interface_is_still_there(
    daemon: Networked, outside: Host, mode: str
) -> None:
    """The kernel removes a namespace's interfaces in its own time; both have one place."""
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "-o", f"mode={mode}", "phys") == ""
    daemon.box("web", "sleep", "1000", networks=[{"network": "phys"}])
    last = os.open(f"/proc/{daemon.pid_of('web')}/ns/net", os.O_RDONLY)
    gone = threading.Timer(2, os.close, [last])
    daemon.orlop("kill", "web")
    daemon.orlop("wait", "web")
    gone.start()
    daemon.orlop("start", "web")
    gone.join()
    assert "192.168.7." in daemon.within("web", "ip", "-4", "address", "show", "eth0")


def test_it_is_plugged_and_pulled_while_a_container_runs(daemon: Networked, outside: Host) -> None:
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "-o", "mode=private", "phys") == ""
    daemon.box("web")
    daemon.orlop("network", "connect", "--ip", "192.168.7.60", "phys", "web")
    assert fetch("http://192.168.7.60", outside) == "web"
    daemon.orlop("network", "disconnect", "phys", "web")
    assert "eth1" not in daemon.within("web", "ip", "link")
    assert refused("http://192.168.7.60", outside)
    daemon.orlop("network", "connect", "--ip", "192.168.7.61", "phys", "web")
    pid = daemon.pid_of("web")
    daemon.kill9()
    assert fetch("http://192.168.7.61", outside) == "web"
    run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "del", "eth1")
    daemon.start()  # and it is made again
    daemon.wait_for(lambda: fetch("http://192.168.7.61", outside) == "web")
    kill(pid)
    daemon.wait_for(lambda: daemon.gone("web"))
    daemon.orlop("network", "rm", "phys")
    assert "wire" in run("ip", "link").stdout  # which was never ours


def test_a_container_s_own_interface_stays(daemon: Networked) -> None:
    """No record knows of it: it was made by whoever has its namespace."""
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "phys") == ""
    daemon.box("box", "sleep", "1000")
    inside = ("nsenter", f"--net=/proc/{daemon.pid_of('box')}/ns/net", "ip", "link")
    run(*inside, "add", "eth1", "type", "bridge")
    before, host = run(*inside).stdout, snapshot()["links"]
    done = daemon.orlop("network", "connect", "phys", "box", check=False)
    assert "already exists" in done.stderr
    assert run(*inside).stdout == before and snapshot()["links"] == host
    run(*inside, "set", "eth1", "name", "mine")
    daemon.orlop("network", "connect", "phys", "box")
    run(*inside, "set", "eth1", "down", "name", "theirs")
    run(*inside, "set", "theirs", "alias", "odd")
    daemon.orlop("network", "disconnect", "phys", "box")
    assert run(*inside).stdout == before.replace("eth1", "mine")


def test_a_container_s_own_changes_outlive_the_daemon(daemon: Networked) -> None:
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "phys") == ""
    renamed = ("link set eth0 down name wan0", "addr flush dev wan0")
    daemon.keep_over_a_restart("phys", renamed, ("link set eth0 down alias odd",))


def test_one_that_is_half_made_is_known_and_not_whole(
    kernel: Kernel, pins: PinnedNamespaces, lab: Lab
) -> None:
    """Whichever step a worker has died at."""
    lab.neighbour("192.168.7.1/24", "192.168.7.2/24")
    subnets = (Subnet("192.168.7.0/24", "192.168.7.2"), Subnet("fd77::/64", "fd77::2"))
    network = Network(
        id="n", namespace="test", name="phys", driver="macvlan", bridge="wire", subnets=subnets
    )
    endpoint = Endpoint(
        namespace="test", container="box", network="n", position=0, link="veth00000000001",
        inside="eth0", mac="02:00:00:00:00:AB", addresses=("192.168.7.9", "fd77::9"),
    )  # fmt: skip
    ns = str(pins.create("test", "lab"))
    steps = [*uplink.plug(network, endpoint, ns)]
    for done in range(1, len(steps) + 1):
        kernel.apply(*steps[:done])
        inside = kernel.links(ns)
        assert uplink.is_whole(network, endpoint, inside) == (done == len(steps))
        kernel.apply(*uplink.unplug(network, endpoint, ns, inside))
        assert [each.name for each in kernel.links(ns)] == ["lo"]
        assert "veth" not in run("ip", "link").stdout


def test_what_cannot_be_is_told(daemon: Networked) -> None:
    before = snapshot()
    for words, text in (
        (["-d", "macvlan", "-o", "parent=wire", "x"], 'give the subnet that "wire" is in'),
        (["-d", "macvlan", "--subnet", "10.9.0.0/24", "x"], "name its parent"),
        (["-d", "macvlan", *ON_THE_WIRE, "-o", "mode=odd", "x"], 'mode "odd" is none of'),
        (["-d", "bridge", "-o", "parent=wire", "x"], "has none such"),
        (["-d", "overlay", "x"], "is none of bridge, macvlan, ipvlan"),
    ):
        assert text in create(daemon, *words)
    assert create(daemon, "-d", "macvlan", *ON_THE_WIRE, "phys") == ""
    assert "of another network" in create(
        daemon, "-d", "macvlan", "--subnet", "10.9.0.0/24", "-o", "parent=wire", "y"
    )
    elsewhere = ("--subnet", "10.9.0.0/24", "-o", "parent=none9", "z")
    assert create(daemon, "-d", "macvlan", *elsewhere) == ""
    for network, options, text in (
        ("z", (), 'interface "none9", which network "z" is on: not found'),
        ("phys", ("-p", "80:80"), "macvlan: such a network publishes no ports"),
        ("phys", ("--network-rate-in", "1mbit"), "limits only what goes out"),
        ("phys", ("--ip", "192.168.7.2"), "is taken"),
        ("phys", ("--ip", "192.168.7.1"), "is taken"),
    ):
        done = daemon.orlop("run", "--network", network, *options, BUSYBOX, "true", check=False)
        assert done.returncode == 125 and text in done.stderr, done.stderr
    assert snapshot() == before


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_an_option_of_the_kernel_s_is_there_or_told(daemon: Networked, driver: str) -> None:
    """A vlan, and ipvlan, which this host's kernel may lack: never half of it."""
    subnet = ("--subnet", "10.9.0.0/24", "-o", "parent=wire.10")
    assert create(daemon, "-d", driver, *subnet, "tagged") == ""
    done = daemon.orlop("run", "--network", "tagged", BUSYBOX, "true", check=False)
    if done.returncode:
        assert 'add vlan "wire.10"' in done.stderr and "not supported" in done.stderr
    assert daemon.orlop("network", "rm", "tagged").returncode == 0
    assert "wire.10" not in run("ip", "link").stdout


def test_what_is_not_ours_stays(daemon: Networked) -> None:
    before = snapshot()
    assert 'interface "wire"' in create(daemon, "--bridge", "wire", "mistaken")
    assert create(daemon, "--bridge", "late", "early") == ""
    run("ip", "link", "add", "late", "type", "bridge")
    done = daemon.orlop("run", "--network", "early", BUSYBOX, "true", check=False)
    assert 'interface "late" in' in done.stderr and "is not orlop's own" in done.stderr
    daemon.orlop("network", "rm", "early")
    run("ip", "link", "delete", "late")
    assert snapshot() == before
