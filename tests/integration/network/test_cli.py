"""Networks by the orlop command, as Docker's users know them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import FailedPrecondition
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, run
from tests.integration.network.networked import SERVE, Networked, fetch, refused


def inspected(daemon: Networked, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.orlop("inspect", name).stdout)[0]["NetworkSettings"]
    return found


def serve(daemon: Networked, name: str, *options: str) -> None:
    daemon.orlop("run", "-d", "--name", name, *options, BUSYBOX, "sh", "-c", SERVE)
    daemon.wait_until_it_serves(name)


def test_run_is_on_the_bridge_and_publishes(daemon: Networked, outside: Host) -> None:
    serve(daemon, "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80/tcp", "-p", "80")
    assert fetch("http://192.168.7.1:8080", outside) == "web"
    assert fetch("http://127.0.0.1:8081") == "web"
    assert refused("http://192.168.7.1:8081", outside)
    lines = daemon.orlop("port", "web").stdout.splitlines()
    assert {"80/tcp -> 0.0.0.0:8080", "80/tcp -> 127.0.0.1:8081"} <= set(lines)
    assert len(lines) == 3 and not any(line.endswith(":0") for line in lines)
    free = next(line for line in lines if not line.endswith(("8080", "8081")))
    assert fetch(f"http://192.168.7.1:{free.rpartition(':')[2]}", outside) == "web"
    shown = daemon.orlop("ps", "--format", "{{.Ports}}").stdout
    assert "0.0.0.0:8080->80/tcp" in shown and ":0->" not in shown
    settings = inspected(daemon, "web")
    assert settings["Networks"]["bridge"]["IPAddress"] == settings["IPAddress"]
    assert {"HostIp": "127.0.0.1", "HostPort": "8081"} in settings["Ports"]["80/tcp"]
    daemon.orlop("stop", "-t", "0", "web")
    assert refused("http://192.168.7.1:8080", outside)
    daemon.orlop("start", "web")
    assert fetch("http://192.168.7.1:8080", outside) == "web"


def test_a_port_leads_to_one_container(daemon: Networked) -> None:
    """By whatever protocol, and also before a new daemon has taken it; one may be of a range."""
    for name, number in (("one", 8080), ("two", 8081)):
        serve(daemon, name, "-p", "8080-8081:80")
        assert daemon.orlop("port", name).stdout == f"80/tcp -> 0.0.0.0:{number}\n"
        assert fetch(f"http://192.168.7.1:{number}") == name
        shown = daemon.orlop("ps", "--format", "{{.Ports}}").stdout
        assert f"0.0.0.0:{number}->80/tcp" in shown
    done = daemon.orlop("run", "-p", "8080-8081:80", BUSYBOX, "true", check=False)
    assert "port 8080-8081/tcp of the host: none is free" in done.stderr
    asleep = ("run", "-d", "-p", "5000-5009:5000-5009/sctp", "-p", "77/sctp")
    daemon.orlop(*asleep, "--name", "first", BUSYBOX, "sleep", "1000")
    assert re.search(r"^77/sctp -> 0\.0\.0\.0:\d+$", daemon.orlop("port", "first").stdout, re.M)
    for again in (False, True):
        if again:
            daemon.restart()
        for option in ("5009:1/sctp", "127.0.0.1:5000:1/sctp"):
            done = daemon.orlop("run", "-p", option, BUSYBOX, "true", check=False)
            assert done.returncode == 125 and "/sctp of the host is taken" in done.stderr
    twice = ("run", "-p", "6000:1/sctp", "-p", "6000:1/sctp", BUSYBOX, "true")
    assert "port 6000/sctp of the host is taken" in daemon.orlop(*twice, check=False).stderr
    daemon.orlop("run", "--rm", "-p", "6000:1/sctp", BUSYBOX, "true")


def test_a_run_to_the_end_leaves_nothing(daemon: Networked) -> None:
    before = run("ip", "-br", "link").stdout
    done = daemon.orlop("run", "--rm", "-p", "8080:80", BUSYBOX, "ip", "addr")
    assert re.search(r"inet 10\.88\.\d+\.\d+/20 .*eth0", done.stdout)
    assert daemon.orlop("ps", "-aq").stdout == ""
    for answer in ("n\n", "no\n", "\n", ""):
        assert daemon.orlop("network", "prune", input=answer, check=False).returncode == 1
    assert "bridge" in daemon.orlop("network", "ls").stdout
    daemon.orlop("network", "prune", "-f")  # at once
    daemon.wait_for(lambda: run("ip", "-br", "link").stdout == before)


def test_networks_come_and_go_by_name(daemon: Networked) -> None:
    one = daemon.orlop(
        "network", "create", "--subnet", "10.201.0.0/24", "--gateway", "10.201.0.254",
        "--label", "tier=back", "one",
    ).stdout.strip()  # fmt: skip
    daemon.orlop("network", "create", "--internal", "--ipv6", "two")
    serve(daemon, "web", "--network", "one", "--ip", "10.201.0.7", "--network-alias", "www",
          "--mac-address", "02:00:00:00:00:55")  # fmt: skip
    shown = daemon.orlop("network", "ls", "--format", "{{.Name}} {{.Subnets}}").stdout
    assert "one 10.201.0.0/24\n" in shown and re.search(r"two 10\..*, fd6f:", shown)
    assert daemon.orlop("network", "ls", "-q", "-f", "labels.tier==back").stdout == f"{one}\n"
    (found,) = json.loads(daemon.orlop("network", "inspect", "one").stdout)
    assert found["IPAM"]["Config"] == [{"Subnet": "10.201.0.0/24", "Gateway": "10.201.0.254"}]
    assert found["Containers"]["web"]["Addresses"] == ["10.201.0.7"]
    assert "02:00:00:00:00:55" in daemon.within("web", "ip", "link", "show", "eth0")
    assert "default via 10.201.0.254" in daemon.within("web", "ip", "route")

    done = daemon.orlop("network", "rm", "one", check=False)
    assert done.returncode == 1 and 'network "one" is used by "web"' in done.stderr
    daemon.orlop("network", "connect", "two", "web", "--alias", "behind")
    assert set(inspected(daemon, "web")["Networks"]) == {"one", "two"}
    assert "already exists" in daemon.orlop("network", "connect", "two", "web", check=False).stderr
    daemon.orlop("restart", "-t", "0", "web")  # and it stays so
    assert set(inspected(daemon, "web")["Networks"]) == {"one", "two"}
    daemon.orlop("network", "disconnect", "two", "web")
    daemon.orlop("restart", "-t", "0", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"one"}
    done = daemon.orlop("network", "disconnect", "two", "web", check=False)
    assert done.returncode == 1
    daemon.orlop("stop", "-t", "0", "web")
    daemon.orlop("network", "connect", "two", "web")  # to take effect at its next start
    daemon.orlop("start", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"one", "two"}
    daemon.orlop("rm", "-f", "web")
    assert daemon.orlop("network", "rm", "one", "two").stdout == "one\ntwo\n"


def test_who_leaves_the_last_network_leaves_its_ports(daemon: Networked) -> None:
    serve(daemon, "web", "-p", "8080:80")
    daemon.orlop("network", "create", "one")
    daemon.orlop("network", "connect", "one", "web")
    daemon.orlop("network", "disconnect", "bridge", "web")
    assert fetch("http://192.168.7.1:8080") == "web"  # by the one that is left
    daemon.orlop("network", "disconnect", "one", "web")
    assert not daemon.inspect("web").ports
    assert refused("http://192.168.7.1:8080")
    serve(daemon, "other", "-p", "8080:80")
    assert fetch("http://192.168.7.1:8080") == "other"


def test_who_connects_and_disconnects_at_once_loses_nothing(daemon: Networked) -> None:
    serve(daemon, "web")
    names = [f"net{number}" for number in range(5)]
    for name in names:
        daemon.orlop("network", "create", name)

    def at_once(verb: str) -> None:
        running = [
            subprocess.Popen(daemon.orlop_command("network", verb, each, "web")) for each in names
        ]
        assert [each.wait() for each in running] == [0] * len(names)

    at_once("connect")
    daemon.orlop("restart", "-t", "0", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"bridge", *names}
    at_once("disconnect")
    daemon.orlop("restart", "-t", "0", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"bridge"}


def test_a_network_that_is_gone_can_be_left(daemon: Networked) -> None:
    daemon.orlop("network", "create", "one")
    serve(daemon, "web", "--network", "one", "--network", "bridge")
    daemon.orlop("stop", "-t", "0", "web")
    daemon.wait_for(lambda: daemon.gone("web"))
    daemon.orlop("network", "rm", "one")
    assert 'network "one": not found' in daemon.orlop("start", "web", check=False).stderr
    daemon.orlop("network", "disconnect", "one", "web")
    daemon.orlop("start", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"bridge"}
    done = daemon.orlop("network", "disconnect", "one", "web", check=False)
    assert done.returncode == 1 and 'network "one": not found' in done.stderr


def test_what_cannot_be_connected_is_told(daemon: Networked) -> None:
    serve(daemon, "web")
    daemon.orlop(
        "run", "-d", "--name", "side", "--network", "container:web", BUSYBOX, "sleep", "99"
    )
    daemon.orlop("run", "-d", "--name", "hosted", "--network", "host", BUSYBOX, "sleep", "99")
    daemon.orlop("network", "create", "one")
    for name in ("side", "hosted"):
        done = daemon.orlop("network", "connect", "one", name, check=False)
        assert f'container "{name}" has no network namespace of its own' in done.stderr
    done = daemon.orlop("network", "connect", "bridge", "web", check=False)
    assert 'container "web" in network "bridge": already exists' in done.stderr
    parent = ("--subnet", "192.168.7.0/24", "-o", "parent=wire")
    daemon.orlop("network", "create", "-d", "macvlan", *parent, "lan")
    into = ("network", "connect", "--network-rate-in", "1mbit", "lan", "web")
    daemon.orlop("stop", "-t", "0", "web")
    assert "macvlan limits only what goes out" in daemon.orlop(*into, check=False).stderr
    daemon.orlop("start", "web")
    assert set(inspected(daemon, "web")["Networks"]) == {"bridge"}


def test_names_and_resolvers(daemon: Networked) -> None:
    options = ["--add-host", "db:10.0.0.9", "--add-host", "up:host-gateway", "--dns", "10.0.0.53",
               "--dns-search", "a.test", "--dns-opt", "ndots:3", "-h", "box"]  # fmt: skip
    files = ["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]
    shown = daemon.orlop("run", "--rm", *options, BUSYBOX, *files).stdout
    for line in ("10.0.0.9\tdb", "10.88.0.1\tup", "nameserver 10.88.0.1", "search a.test",
                 "options ndots:3", "box"):  # fmt: skip
        assert line in shown.splitlines()
    assert re.search(r"^10\.88\.\d+\.\d+\tbox$", shown, re.M)
    shown = daemon.orlop("run", "--rm", "--network", "host", BUSYBOX, *files[:3]).stdout
    assert Path("/etc/hosts").read_text() in shown and Path("/etc/resolv.conf").exists()
    mine = daemon.folder / "hosts"
    mine.write_text("10.0.0.1 mine\n")
    shown = daemon.orlop("run", "--rm", "-v", f"{mine}:/etc/hosts", BUSYBOX, *files[:2]).stdout
    assert shown == "10.0.0.1 mine\n"


def test_host_none_and_others_networks(daemon: Networked) -> None:
    serve(daemon, "web", "-p", "8080:80")
    beside = ("run", "--rm", "--network", "container:web", BUSYBOX)
    assert daemon.orlop(*beside, "wget", "-qO-", "http://127.0.0.1").stdout == "web\n"
    assert daemon.orlop(*beside, "hostname").stdout == daemon.within("web", "hostname")
    assert daemon.address_of("web") in daemon.orlop(*beside, "ip", "addr").stdout
    for name in ("resolv.conf", "hosts"):
        there = daemon.within("web", "cat", f"/etc/{name}")
        assert daemon.orlop(*beside, "cat", f"/etc/{name}").stdout == there
    assert daemon.address_of("web") in daemon.orlop(*beside, "nslookup", "web").stdout
    own = ("run", "--rm", "--network", "container:web", "--dns", "10.9.9.9", BUSYBOX)
    assert daemon.orlop(*own, "cat", "/etc/resolv.conf").stdout.startswith("nameserver 10.9.9.9\n")
    shown = daemon.orlop("run", "--rm", "--network", "none", BUSYBOX, "ip", "-o", "link").stdout
    assert "eth0" not in shown and "lo" in shown
    shown = daemon.orlop("run", "--rm", "--network", "host", BUSYBOX, "ip", "-o", "link").stdout
    assert "orlop0" in shown and "wire" in shown
    daemon.orlop(
        "run", "-d", "--name", "side", "--network", "container:web", BUSYBOX, "sleep", "99"
    )
    third = ("run", "--rm", "--network", "container:side", BUSYBOX, "cat", "/etc/hosts")
    assert daemon.orlop(*third).stdout == daemon.within("web", "cat", "/etc/hosts")
    daemon.orlop("stop", "-t", "0", "side", "web")
    done = daemon.orlop("start", "side", check=False)
    assert 'container "web", whose network is shared, does not run' in done.stderr
    daemon.orlop("start", "web", "side")
    daemon.wait_until_it_serves("web")
    assert daemon.within("side", "wget", "-qO-", "http://127.0.0.1") == "web\n"


def test_network_namespaces_by_name(daemon: Networked) -> None:
    assert daemon.orlop("netns", "create", "one", "two").stdout == "one\ntwo\n"
    daemon.orlop("netns", "exec", "one", "ip", "link", "add", "b7", "type", "bridge")
    shown = daemon.orlop(
        "run", "--rm", "--network", "netns:one", BUSYBOX, "ip", "-o", "link"
    ).stdout
    assert "b7" in shown
    assert "b7" not in daemon.orlop("netns", "exec", "two", "ip", "link").stdout
    names = [line.split()[0] for line in daemon.orlop("netns", "ls").stdout.splitlines()]
    assert names == ["NAME", "one", "two"]
    (found,) = json.loads(daemon.orlop("netns", "inspect", "one").stdout)
    assert [each["name"] for each in found["Links"]] == ["lo", "b7"] and found["Name"] == "one"
    done = daemon.orlop("netns", "exec", "three", "true", check=False)
    assert done.returncode == 125 and 'network namespace "three": not found' in done.stderr
    assert daemon.orlop("netns", "exec", "one", "no-such-thing", check=False).returncode == 125
    daemon.orlop("netns", "rm", "one", "two")
    assert daemon.orlop("netns", "rm", "one", check=False).returncode == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("-p", "x:80"), "is not [[ADDRESS:]PORT:]PORT"),
        (("-p", "80:0"), "ports are 1 to 65535"),
        (("-p", "80-82:80-81"), "the ranges differ"),
        (("-p", "80/icmp"), "none of tcp, udp, sctp"),
        (("-p", "192.0.2.77:80:80"), "cannot assign"),
        (("--network", "none", "-p", "80"), 'no sense with --network "none"'),
        (("--network", "host", "--network", "bridge"), "excludes others"),
        (("--network", "nowhere"), 'network "nowhere": not found'),
        (("--network", "container:nobody"), 'container "nobody": not found'),
        (("--network", "netns:nowhere"), 'network namespace "nowhere": not found'),
        (("--ip", "10.88.0.1"), "is taken"),
        (("--ip", "10.1.0.1"), "none of a host in subnet"),
        (("--dns", "dns.test"), "is no address"),
        (("--add-host", "x"), "is not NAME:ADDRESS"),
    ],
)
def test_what_makes_no_sense_is_told(
    daemon: Networked, options: tuple[str, ...], text: str
) -> None:
    done = daemon.orlop("run", *options, BUSYBOX, "true", check=False)
    assert done.returncode == 125 and text in done.stderr, done.stderr
    assert daemon.orlop("ps", "-aq").stdout == ""


def test_no_networks_without_the_right_to_make_them(lab: object) -> None:
    """`orlop run` runs on; only what asks for a network is told why there is none."""
    made = Networked()
    made.inside = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    try:
        made.start()
        with made.connect() as connection:
            from orlop.client import networks

            assert networks.default(connection) == "none"
            with pytest.raises(FailedPrecondition, match="networks cannot be used"):
                networks.connect(connection, "box", "bridge")
        assert "orlop0" not in run("ip", "link").stdout
        made.close()
    finally:
        made.discard()
