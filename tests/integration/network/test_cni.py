"""Containers in CNI networks: Debian's plugins, and ones that misbehave."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orlop.errors import NotFound
from orlop.sys.process import mark
from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.cni_fixture import BRIDGE, WithCni
from tests.integration.network.lab import Host, Lab, run, snapshot
from tests.integration.network.networked import SERVE, fetch, refused
from tests.killing import kill

LAB = [{"network": "cni:lab"}]
WEB = [{"hostPort": 8080, "containerPort": 80}]
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.neighbour("192.168.7.1/24", "192.168.7.2/24")


@pytest.fixture
def cni(host: Host, busybox_archive: Path) -> Iterator[WithCni]:
    """An orlopd with the network `cni:lab`, a bridge with ports; all must be gone at the end."""
    before = snapshot()
    made = WithCni()
    try:
        made.configure("lab", made.bridge(), PORTMAP, {"type": "firewall"}, {"type": "tuning"})
        made.start()
        made.ctr("images", "import", str(busybox_archive))
        yield made
        made.assert_clean(before)
        made.close()
    finally:
        made.discard()


def test_a_container_is_reached_and_reaches_others(cni: WithCni, host: Host) -> None:
    cni.orlop("run", "-d", "--name", "web", "--network", "cni:lab", "-p", "8080:80", "-p", "80",
              "--ip", "10.77.0.50", "--mac-address", "02:00:00:00:77:01", "-h", "web",
              "--network-alias", "www", BUSYBOX, "sh", "-c", SERVE)  # fmt: skip
    cni.wait_until_it_serves("web")
    cni.box("other", "sleep", "1000", networks=LAB)
    assert fetch("http://192.168.7.1:8080", host) == "web"
    assert fetch("http://127.0.0.1:8080") == "web"
    assert cni.within("other", "wget", "-qO-", "http://10.77.0.50").strip() == "web"
    cni.within("other", "ping", "-c", "1", "-W", "5", "192.168.7.2")
    assert "10.77.0.50\tweb www" in cni.within("web", "cat", "/etc/hosts")
    assert "02:00:00:00:77:01" in cni.within("web", "ip", "link", "show", "eth0")
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("", 8080))
    found = cni.inspect("web")
    assert 8080 in [each.host_port for each in found.ports]
    (place,) = found.endpoints
    assert (place.network, list(place.addresses), place.mac, place.interface) == (
        "cni:lab", ["10.77.0.50"], "02:00:00:00:77:01", "eth0"
    )  # fmt: skip
    assert f"master {BRIDGE}" in run("ip", "link", "show", place.host_interface).stdout
    lines = cni.orlop("port", "web").stdout.splitlines()
    free = next(line.rpartition(":")[2] for line in lines if not line.endswith(":8080"))
    assert fetch(f"http://192.168.7.1:{free}", host) == "web"
    cni.orlop("stop", "-t", "0", "web")
    cni.wait_for(lambda: cni.gone("web"))
    assert refused("http://192.168.7.1:8080", host)
    assert cni.addresses() == [cni.address_of("other")]
    cni.orlop("start", "web")
    cni.wait_until_it_serves("web")
    assert fetch("http://192.168.7.1:8080", host) == "web"


def test_networks_are_listed_and_shown(cni: WithCni) -> None:
    cni.configure("two", cni.bridge("10.78.0.0/24"))
    cni.box("box", "sleep", "1000", networks=LAB)
    rows = [line.split() for line in cni.orlop("network", "ls").stdout.splitlines()]
    assert ["cni:lab", "cni:lab", "cni"] in rows and ["cni:two", "cni:two", "cni"] in rows
    assert cni.orlop("network", "ls", "-q", "-f", "name==cni:two").stdout == "cni:two\n"
    (shown,) = json.loads(cni.orlop("network", "inspect", "cni:lab").stdout)
    assert shown["Driver"] == "cni" and shown["Created"] == ""
    assert shown["Containers"]["box"]["Addresses"] == [cni.address_of("box")]
    done = cni.orlop("network", "rm", "cni:lab", check=False)
    assert "there as long as its configuration file" in done.stderr
    (cni.net_d / "two.conflist").unlink()
    with cni.connect() as connection, pytest.raises(NotFound, match='CNI network "two"'):
        connection.networks.get(wire.GetNetworkRequest(name="cni:two"))
    (cni.net_d / "lab.conflist").unlink()  # who is in there can be seen, and leave
    assert "box" in cni.orlop("network", "inspect", "cni:lab").stdout


def test_names_and_resolvers_of_the_result(cni: WithCni) -> None:
    dns = {"nameservers": ["10.9.9.9"], "domain": "lab.test", "options": ["ndots:3"]}
    cni.configure("lab", {**cni.bridge(), "dns": dns})
    cni.box("box", "sleep", "1000", networks=LAB)
    text = cni.within("box", "cat", "/etc/resolv.conf")
    assert text == "nameserver 10.9.9.9\nsearch lab.test\noptions ndots:3\n"
    assert f"{cni.address_of('box')}\tbox" in cni.within("box", "cat", "/etc/hosts")
    options = ("--network", "cni:lab", "--dns", "10.8.8.8", "--add-host", "gate:host-gateway")
    done = cni.orlop("run", "--rm", *options, BUSYBOX, "cat", "/etc/resolv.conf", "/etc/hosts")
    assert "nameserver 10.8.8.8\nsearch lab.test\n" in done.stdout
    assert "10.77.0.1\tgate" in done.stdout


def test_who_is_in_the_same_network_is_known_by_name(cni: WithCni) -> None:
    cni.box("web", networks=[{"network": "cni:lab", "aliases": ["www"]}])
    cni.box("near", "sleep", "1000", networks=LAB)
    for name in ("web", "www.lab"):
        asking = ("exec", "near", "wget", "-qO-", f"http://{name}")
        cni.wait_for(lambda asking=asking: cni.orlop(*asking, check=False).stdout == "web\n")  # type: ignore[misc]
    assert "near" in cni.within("web", "cat", "/etc/hosts")
    cni.orlop("rm", "-f", "near")
    cni.wait_for(lambda: "near" not in cni.within("web", "cat", "/etc/hosts"))


def test_a_plugin_is_told_of_resolvers_that_are_wished(cni: WithCni) -> None:
    log = cni.plugin("names", "")
    plain = cni.plugin("plain", "")
    chain = ({"type": "names", "capabilities": {"dns": True}}, {"type": "plain"})
    cni.configure("lab", *chain)
    wished = ("--dns", "10.8.8.8", "--dns-search", "lab.test", "--dns-option", "ndots:2")
    cni.orlop("run", "--rm", "--network", "cni:lab", *wished, BUSYBOX, "true")
    calls = [json.loads(line.partition(" ")[2]) for line in log.read_text().splitlines()]
    assert len(calls) == 2 and all(
        each["runtimeConfig"]["dns"]
        == {"servers": ["10.8.8.8"], "searches": ["lab.test"], "options": ["ndots:2"]}
        for each in calls
    )  # ADD and DEL
    assert "runtimeConfig" not in plain.read_text()
    cni.orlop("run", "--rm", "--network", "cni:lab", BUSYBOX, "true")
    assert "10.8.8.8" not in log.read_text().splitlines()[2]


def test_several_networks_and_both_kinds(cni: WithCni) -> None:
    run("ip", "link", "add", "trunk", "type", "veth", "peer", "name", "trunk2")
    try:
        ipam = {"type": "static", "addresses": [{"address": "10.79.0.9/24"}]}
        cni.configure("mac", {"type": "macvlan", "master": "trunk", "ipam": ipam})
        cni.box("box", "sleep", "1000", networks=[{"network": "bridge"}, *LAB])
        cni.orlop("network", "connect", "cni:mac", "box")
        links = cni.within("box", "ip", "-o", "addr")
        assert re.search(r"eth0 .*10\.88\.", links)
        assert re.search(r"eth1 .*10\.77\.", links)
        assert re.search(r"eth2 .*10\.79\.0\.9/24", links)
        done = cni.orlop("network", "connect", "cni:mac", "box", check=False)
        assert "already exists" in done.stderr
        cni.orlop("network", "disconnect", "cni:mac", "box")
        cni.orlop("network", "disconnect", "cni:lab", "box")
        assert "eth1" not in cni.within("box", "ip", "-o", "link")
        done = cni.orlop("network", "disconnect", "cni:lab", "box", check=False)
        assert "not found" in done.stderr
        cni.orlop("network", "connect", "cni:lab", "box")
        assert re.search(r"eth1 .*10\.77\.", cni.within("box", "ip", "-o", "addr"))
    finally:
        run("ip", "link", "del", "trunk")


def test_rates_are_limited_by_debian_s_plugin(cni: WithCni) -> None:
    cni.configure("lab", cni.bridge(), {"type": "bandwidth", "capabilities": {"bandwidth": True}})
    wish = {"network": "cni:lab", "rates": {"rate_in": 8_000_000, "burst": 50_000}}
    cni.box("box", "sleep", "1000", networks=[wish])
    cable = cni.inspect("box").endpoints[0].host_interface
    shown = run("tc", "qdisc", "show", "dev", cable).stdout
    assert "tbf" in shown and "rate 8Mbit" in shown, shown
    cni.configure("lab", cni.bridge())
    done = cni.box("other", "true", networks=[wish], check=False)
    assert 'no plugin with the capability "bandwidth"' in done.stderr


def test_what_cannot_be_had_is_told_and_leaves_nothing(cni: WithCni) -> None:
    cni.configure("plain", {"type": "bridge", "bridge": BRIDGE})
    cni.configure("lost", {"type": "no-such-plugin"})
    cni.configure("new", cni.bridge(), version="1.1.0")
    cni.plugin("bad", '[ $CNI_COMMAND = ADD ] && { echo \'{"code":7,"msg":"no way"}\'; exit 1; }')
    cni.configure("half", cni.bridge(), {"type": "bad"})
    for network, options, text in (
        ("none", [], 'CNI network "none" in'),
        ("plain", ["--ip", "10.1.1.1"], 'no plugin with the capability "ips"'),
        ("plain", ["-p", "80"], 'no plugin with the capability "portMappings"'),
        ("lost", [], 'CNI plugin "no-such-plugin" in'),
        ("new", [], 'of version 1.1.0: "bridge" speaks'),
        ("half", [], 'CNI plugin "bad" (ADD): no way (code 7)'),
        ("lab", ["--ip", "10.99.0.1"], 'CNI plugin "bridge" (ADD): '),
    ):
        where = ("run", "--name", "box", "--network", f"cni:{network}", *options)
        done = cni.orlop(*where, BUSYBOX, "true", check=False)
        assert done.returncode == 125 and text in done.stderr, (network, done.stderr)
        assert not cni.results() and cni.orlop("ps", "-aq").stdout == ""
    assert not cni.addresses("half")
    assert not run("ip", "-br", "link", "show", "master", BRIDGE, check=False).stdout


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_debian_s_plugins_check_who_is_in_there(cni: WithCni, version: str) -> None:
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}}
    chain = [cni.bridge(), PORTMAP, tuning]
    if version != "0.3.1":
        chain.append({"type": "firewall"})
    cni.configure("lab", *chain, version=version)
    # Without ports: Debian's portmap looks for each in ip6tables, whatever its address is.
    cni.box("web", "sleep", "1000", networks=LAB)
    cni.box("other", "sleep", "1000", networks=LAB)

    def flaws() -> list[str]:
        done = cni.orlop("network", "inspect", "--check", "cni:lab", check=False)
        (shown,) = json.loads(done.stdout)
        assert done.returncode == int(bool(shown["Flaws"]))
        return list(shown["Flaws"])

    if version == "0.3.1":
        assert len(flaws()) == 2 and "is of version 0.3.1, which has no CHECK" in flaws()[0]
        return
    assert flaws() == []
    inside = ("nsenter", f"--net=/proc/{cni.pid_of('web')}/ns/net")
    run(*inside, "sysctl", "-w", "net.ipv4.conf.eth0.log_martians=0")
    (flaw,) = flaws()
    assert flaw.startswith('container "web": CNI plugin "tuning" (CHECK): ')
    run(*inside, "ip", "addr", "flush", "dev", "eth0")
    (flaw,) = flaws()
    assert flaw.startswith('container "web": CNI plugin "bridge" (CHECK): ')
    # The plugin takes its NAT away by the address that it finds.
    run(*inside, "ip", "addr", "add", f"{cni.address_of('web')}/24", "dev", "eth0")
    cni.orlop("rm", "-f", "web")
    assert flaws() == []


def test_a_plugin_that_cannot_now_is_asked_before_anything_is_done(cni: WithCni) -> None:
    busy = cni.folder / "busy"
    answer = '{"cniVersion":"1.1.0","code":50,"msg":"no uplink"}'
    log = cni.plugin(
        "shy", f"[ $CNI_COMMAND = STATUS ] && [ -e {busy} ] && {{ echo '{answer}'; exit 1; }}"
    )
    cni.configure("modern", {"type": "shy"}, version="1.1.0")
    where = ("run", "--rm", "--network", "cni:modern", BUSYBOX, "true")
    cni.orlop(*where)
    busy.touch()
    text = 'CNI plugin "shy" (STATUS): no uplink (code 50)'
    done = cni.orlop(*where, check=False)
    assert done.returncode == 125 and text in done.stderr
    shown = cni.orlop("network", "inspect", "--check", "cni:modern", check=False)
    assert shown.returncode == 1 and json.loads(shown.stdout)[0]["Flaws"] == [text]
    told = [line.split()[0] for line in log.read_text().splitlines()]
    assert told == ["STATUS", "ADD", "DEL", "STATUS", "STATUS"]
    box = ("run", "-d", "--name", "box", "--network", "none", BUSYBOX, "sleep", "1000")
    cni.orlop(*box)
    done = cni.orlop("network", "connect", "cni:modern", "box", check=False)
    assert done.returncode and text in done.stderr
    busy.unlink()
    cni.orlop("network", "connect", "cni:modern", "box")


def test_a_plugin_that_refuses_del_is_asked_again(cni: WithCni) -> None:
    allowed = cni.folder / "allowed"
    cni.plugin("clingy", f"[ $CNI_COMMAND != DEL ] || [ -e {allowed} ] || exit 9")
    cni.configure("lab", cni.bridge(), {"type": "clingy"})
    cni.box("box", "sleep", "1000", networks=LAB)
    cni.orlop("stop", "-t", "0", "box")
    cni.wait_for(lambda: "(DEL): exit code 9" in cni.log.read_text())
    done = cni.orlop("start", "box", check=False)
    assert 'still attached to CNI network "lab"' in done.stderr
    allowed.touch()
    cni.orlop("start", "box")
    assert cni.within("box", "ip", "-o", "addr", "show", "eth0")


def test_a_plugin_that_hangs_holds_up_nobody_else_and_not_the_daemon_s_end(cni: WithCni) -> None:
    allowed = cni.folder / "allowed"
    cni.plugin("slow", f"[ $CNI_COMMAND != DEL ] || [ -e {allowed} ] || sleep 1000")
    cni.configure("slow", {"type": "slow"})
    cni.box("stuck", "sleep", "1000", networks=[{"network": "cni:slow"}])
    cni.box("web", networks=LAB)
    cni.orlop("stop", "-t", "0", "stuck")
    cni.orlop("rm", "-f", "web")
    cni.wait_for(lambda: cni.gone("web"))
    assert not cni.gone("stuck")
    cni.stop()
    allowed.touch()
    cni.start()
    cni.wait_for(lambda: cni.gone("stuck"))


def test_a_refused_del_is_told_who_disconnects_and_its_namespace_taken_by_nobody(
    cni: WithCni,
) -> None:
    allowed = cni.folder / "allowed"
    cni.plugin("clingy", f"[ $CNI_COMMAND != DEL ] || [ -e {allowed} ] || exit 9")
    cni.configure("lab", cni.bridge(), {"type": "clingy"})
    log = cni.plugin("two", "")
    cni.configure("two", {"type": "two"})
    cni.box("box", "sleep", "1000", networks=LAB)
    done = cni.orlop("network", "disconnect", "cni:lab", "box", check=False)
    assert done.returncode != 0 and "(DEL): exit code 9" in done.stderr
    cni.orlop("rm", "-f", "box")
    done = cni.box("box", "sleep", "1000", networks=[{"network": "cni:two"}], check=False)
    assert 'an earlier one is still attached to CNI network "lab"' in done.stderr
    assert not log.exists()
    allowed.touch()
    cni.box("box", "sleep", "1000", networks=[{"network": "cni:two"}])
    assert log.read_text().startswith("ADD")


def test_one_network_is_not_asked_for_twice(cni: WithCni) -> None:
    done = cni.box("box", "true", networks=[*LAB, *LAB], check=False)
    assert 'container "box" in network "cni:lab": already exists' in done.stderr


def test_connects_at_once_do_not_hurt_each_other(cni: WithCni) -> None:
    names = [f"net{number}" for number in range(3)]
    for name in names:
        cni.create_network(name)
    cni.plugin("two", "")
    cni.configure("two", {"type": "two"})
    networks = [*names, "cni:lab", "cni:two"]
    cni.box("box", "sleep", "1000", networks=[{"network": "bridge"}])
    connects = [
        subprocess.Popen(cni.orlop_command("network", "connect", each, "box")) for each in networks
    ]
    assert [each.wait() for each in connects] == [0] * len(networks)
    places = cni.inspect("box").endpoints
    assert sorted(each.interface for each in places) == [f"eth{n}" for n in range(6)]
    links = cni.within("box", "ip", "-o", "addr")
    for each in places:
        for address in each.addresses:
            assert f"{each.interface}    inet {address}/" in links


def test_a_plugin_that_hangs_holds_up_neither_start_nor_stop(cni: WithCni) -> None:
    log = cni.plugin("slow", "[ $CNI_COMMAND != DEL ] || [ ! -e hang ] || sleep 1000")
    text = (cni.bin / "slow").read_text().replace("-e hang", f"-e {cni.folder}/hang")
    (cni.bin / "slow").write_text(text)
    config = cni.folder / "config.toml"
    config.write_text(config.read_text().replace("cni_timeout = 100", "cni_timeout = 500"))
    cni.restart()
    cni.configure("slow", {"type": "slow"})
    cni.box("gone", "sleep", "1000", networks=[{"network": "cni:slow"}])
    cni.box("brief", "sleep", "1000")
    pid = cni.pid_of("gone")
    cni.kill9()
    kill(pid)
    (cni.folder / "hang").touch()
    cni.start()
    cni.wait_for(lambda: "DEL" in log.read_text())
    kill(cni.pid_of("brief"))
    cni.wait_for(lambda: not cni.inspect("brief").endpoints)
    cni.stop()
    (cni.folder / "hang").unlink()
    cni.start()
    cni.wait_for(lambda: not cni.results())


def test_who_ends_while_a_plugin_attaches_it_does_not_stay(cni: WithCni) -> None:
    go = cni.folder / "go"
    log = cni.plugin("slow", f"while [ $CNI_COMMAND = ADD ] && [ ! -e {go} ]; do sleep 0.05; done")
    cni.configure("slow", {"type": "slow"})
    cni.box("box", "sleep", "1000", networks=LAB)
    connect = subprocess.Popen(
        cni.orlop_command("network", "connect", "cni:slow", "box"),
        stderr=subprocess.PIPE,
        text=True,
    )
    cni.wait_for(log.exists)
    pid = cni.pid_of("box")
    kill(pid)
    cni.wait_for(lambda: not mark(pid))
    go.touch()
    assert "has ended" in connect.communicate()[1]
    cni.wait_for(lambda: cni.gone("box"))
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["ADD", "DEL"]


def test_no_garbage_is_collected_where_a_result_cannot_be_read(cni: WithCni) -> None:
    log = cni.plugin("gc", "")
    cni.configure("modern", {"type": "gc"}, version="1.1.0")
    cni.box("box", "sleep", "1000", networks=[{"network": "cni:modern"}])
    cni.stop()
    damaged = cni.root / "cni" / "results" / "modern-other-eth0"
    damaged.write_text("{")
    cni.start()
    cni.wait_for(lambda: "it may tell who is valid" in cni.log.read_text())
    assert "GC" not in log.read_text()
    damaged.unlink()


def test_a_restart_policy_attaches_again(cni: WithCni) -> None:
    cni.box("web", networks=LAB, ports=WEB, options=["--restart", "always"])
    kill(cni.pid_of("web"))
    cni.wait_for(lambda: fetch("http://192.168.7.1:8080") == "web", 30)
    assert len(cni.addresses()) == 1


def test_attachments_outlive_the_daemon_and_gc_knows_them(cni: WithCni, host: Host) -> None:
    log = cni.plugin("gc", "")
    cni.configure("modern", {"type": "gc"}, version="1.1.0")
    cni.box("web", networks=[*LAB, {"network": "cni:modern"}], ports=WEB)
    cni.box("brief", "sleep", "1000", networks=[*LAB, {"network": "cni:modern"}])
    pid = cni.pid_of("brief")
    cni.kill9()
    assert fetch("http://192.168.7.1:8080", host) == "web"
    kill(pid)
    cni.wait_for(lambda: not Path(f"/proc/{pid}").exists())  # its shim knows
    stray = cni.state / "cni" / "stray"  # as a crash before the first plugin leaves it
    stray.touch()
    run("mount", "--bind", host.ns, str(stray))
    cni.start()
    cni.wait_for(lambda: not stray.exists())
    cni.wait_for(lambda: cni.gone("brief"))
    cni.wait_for(lambda: "GC" in log.read_text())
    words = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [each for each, _ in words if each != "STATUS"] == ["ADD", "ADD", "DEL", "GC"]
    assert json.loads(words[-1][1])["cni.dev/valid-attachments"] == [
        {"containerID": f"{cni.namespace}--web", "ifname": "eth1"}
    ]
    assert fetch("http://192.168.7.1:8080", host) == "web"
    assert cni.addresses() == [cni.address_of("web")]
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("", 8080))
    cni.orlop("rm", "-f", "web")
    assert refused("http://192.168.7.1:8080", host)


@pytest.mark.timeout(600)
def test_kill9_at_any_moment_leaks_nothing(cni: WithCni) -> None:
    cni.box("stays", networks=LAB, ports=WEB)
    for number, delay in enumerate((0.15, 0.25, 0.35, 0.45, 0.6)):
        name = f"box{number}"
        for words in (
            (
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "cni:lab",
                "-p",
                "80",
                BUSYBOX,
                "sleep",
                "99",
            ),
            ("rm", "-f", name),
        ):
            with subprocess.Popen(
                cni.orlop_command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as client:
                time.sleep(delay)
                cni.kill9()
                client.wait()
            cni.start()
    assert fetch("http://192.168.7.1:8080") == "stays"
    for name in cni.orlop("ps", "-aq").stdout.split():
        if name != "stays":
            cni.orlop("rm", "-f", name)
    cni.wait_for(lambda: len(cni.results()) == 1)
    assert cni.addresses() == [cni.address_of("stays")]
    assert len(run("ip", "-br", "link", "show", "master", BRIDGE).stdout.splitlines()) == 1


def test_many_at_once(cni: WithCni) -> None:
    for number in range(12):
        cni.orlop(
            "create", "--name", f"box{number}", "--network", "cni:lab", BUSYBOX, "sleep", "99"
        )
    starts = [subprocess.Popen(cni.orlop_command("start", f"box{number}")) for number in range(12)]
    assert [each.wait() for each in starts] == [0] * 12
    assert len(set(cni.addresses())) == 12
