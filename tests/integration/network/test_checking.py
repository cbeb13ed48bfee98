"""`orlop network inspect --check`: what is wrong with networks, and with who is in them."""

from __future__ import annotations

import json

import pytest

from orlop.errors import NotFound
from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import run
from tests.integration.network.networked import Networked


def _flaws(daemon: Networked, network: str) -> list[str]:
    done = daemon.orlop("network", "inspect", "--check", network, check=False)
    found = list(json.loads(done.stdout)[0]["Flaws"])
    assert done.returncode == int(bool(found))
    return found


def _rename(inside: tuple[str, ...], old: str, new: str) -> None:
    """Also one that is up, of a kernel of any age; its addresses of IPv6 stay."""
    run(*inside, "sysctl", "-qw", f"net.ipv6.conf.{old}.keep_addr_on_down=1")
    run(*inside, "ip", "link", "set", old, "down", "name", new)
    run(*inside, "ip", "link", "set", new, "up")


def test_who_is_no_more_as_it_was_connected(daemon: Networked) -> None:
    daemon.create_network("one", ipv6=True)
    for name in ("web", "other"):
        daemon.box(name, "sleep", "1000", networks=[{"network": "one"}])
    assert _flaws(daemon, "one") == []
    (place,) = daemon.inspect("web").endpoints
    inside = ("nsenter", f"--net=/proc/{daemon.pid_of('web')}/ns/net")
    _rename(inside, "eth0", "wan0")
    assert _flaws(daemon, "one") == []
    _rename(inside, "wan0", "eth0")
    run(*inside, "ip", "addr", "del", f"{place.addresses[0]}/20", "dev", "eth0")
    (flaw,) = _flaws(daemon, "one")
    assert flaw.startswith('container "web": interface "eth0" in ')
    assert flaw.endswith(f"lacks {place.addresses[0]}")
    run("ip", "link", "set", place.host_interface, "nomaster")
    (flaw,) = _flaws(daemon, "one")
    assert flaw.startswith(f'container "web": "{place.host_interface}" is no more on bridge')
    daemon.orlop("rm", "-f", "web")
    assert _flaws(daemon, "one") == []
    assert "Flaws" not in daemon.orlop("network", "inspect", "one").stdout


def test_on_an_interface_of_the_host(daemon: Networked) -> None:
    made = ("-d", "macvlan", "-o", "parent=wire", "--subnet", "192.168.7.0/24")
    daemon.orlop("network", "create", *made, "lan")
    daemon.orlop("run", "-d", "--name", "box", "--network", "lan", BUSYBOX, "sleep", "1000")
    assert _flaws(daemon, "lan") == []
    inside = ("nsenter", f"--net=/proc/{daemon.pid_of('box')}/ns/net")
    _rename(inside, "eth0", "wan0")
    assert _flaws(daemon, "lan") == []
    _rename(inside, "wan0", "eth0")
    run(*inside, "ip", "addr", "flush", "dev", "eth0")
    (flaw,) = _flaws(daemon, "lan")
    assert 'container "box": interface "eth0" in ' in flaw


def test_a_network_that_is_not_there(daemon: Networked) -> None:
    with daemon.connect() as connection:
        check = connection.networks.check
        whole = wire.CheckNetworkRequest(network="bridge", containers=True)
        assert not check(whole).flaws  # it comes when it is needed
        for name in ("none", "cni:none"):
            with pytest.raises(NotFound):
                check(wire.CheckNetworkRequest(network=name))
