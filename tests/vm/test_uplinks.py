"""Networks by ipvlan and on vlans, for which the kernel of the host may lack modules."""

from __future__ import annotations

import re

import pytest

from tests.integration.network.conftest import daemon, lab, outside  # noqa: F401
from tests.integration.network.lab import Host, run
from tests.integration.network.networked import Networked, fetch

_VLAN = ("--subnet", "10.9.0.0/24", "--gateway", "10.9.0.2", "-o", "parent=wire.10")


def test_ipvlan_has_its_parent_s_address_of_hardware(
    daemon: Networked,  # noqa: F811
    outside: Host,  # noqa: F811
) -> None:
    subnet = ("--subnet", "192.168.7.0/24", "--gateway", "192.168.7.2", "-o", "parent=wire")
    daemon.orlop("network", "create", "-d", "ipvlan", *subnet, "phys")
    daemon.box("web", networks=[{"network": "phys", "ip": "192.168.7.50"}])
    daemon.box("near", networks=[{"network": "phys"}])
    assert fetch("http://192.168.7.50", outside) == "web"
    assert daemon.within("near", "wget", "-qO-", "http://192.168.7.50").strip() == "web"
    ours = re.search(r"link/ether (\S+)", run("ip", "link", "show", "wire").stdout)
    assert ours is not None
    assert ours[1] in daemon.within("web", "ip", "link", "show", "eth0")


def test_ipvlan_routes(daemon: Networked, outside: Host) -> None:  # noqa: F811
    outside.run("ip", "route", "add", "10.9.0.0/24", "via", "192.168.7.1")
    subnet = ("--subnet", "10.9.0.0/24", "-o", "parent=wire", "-o", "ipvlan_mode=l3")
    daemon.orlop("network", "create", "-d", "ipvlan", *subnet, "routed")
    daemon.box("web", networks=[{"network": "routed", "ip": "10.9.0.50"}])
    assert fetch("http://10.9.0.50", outside) == "web"


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_vlan_comes_and_goes_with_its_network(
    daemon: Networked,  # noqa: F811
    outside: Host,  # noqa: F811
    driver: str,
) -> None:
    tagged = ("ip", "link", "add", "link", "eth0", "name", "eth0.10", "type", "vlan", "id", "10")
    outside.run(*tagged)
    outside.run("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0.10")
    outside.run("ip", "link", "set", "eth0.10", "up")
    daemon.orlop("network", "create", "-d", driver, *_VLAN, "tagged")
    daemon.box("web", networks=[{"network": "tagged", "ip": "10.9.0.50"}])
    assert "802.1Q id 10" in run("ip", "-d", "link", "show", "wire.10").stdout
    assert fetch("http://10.9.0.50", outside) == "web"
    daemon.orlop("rm", "-f", "web")
    daemon.wait_for(lambda: daemon.gone("web"))
    daemon.orlop("network", "rm", "tagged")
    assert "wire.10" not in run("ip", "link").stdout
