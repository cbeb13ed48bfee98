"""Containers on bridge networks: who reaches whom, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, run, snapshot
from tests.integration.network.networked import SERVE, Networked, fetch, refused
from tests.killing import kill

_ECHO_BY_UDP = """
import socket
with socket.socket(type=socket.SOCK_DGRAM) as answering:
    answering.bind(("", 53))
    print(flush=True)
    answering.sendto(*answering.recvfrom(100))
"""
_ASK_BY_UDP = """
import socket
asking = socket.socket(type=socket.SOCK_DGRAM)
asking.settimeout(10)
asking.connect(("192.168.7.1", 5300))
asking.send(b"hello")
print(asking.recv(100).decode())
"""
_NAME_BY_UDP = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as answering:
    answering.bind(("", 53))
    print(flush=True)
    while True:
        _, who = answering.recvfrom(100)
        answering.sendto(sys.argv[1].encode(), who)
"""
_ASK_ON_BY_UDP = """
import socket, time
asking = socket.socket(type=socket.SOCK_DGRAM)
asking.connect(("192.168.7.1", 5300))
asking.settimeout(0.1)
while True:
    try:
        asking.send(b"who?")
        print(asking.recv(100).decode(), flush=True)
    except OSError:
        pass
    time.sleep(0.05)
"""
WEB = [{"hostPort": 8080, "containerPort": 80}]
_GUARDS = {
    "nftables": ("nft", "flush", "chain", "inet", "orlop0", "guard"),
    "iptables": ("iptables", "-t", "raw", "-F", "ORLOP-orlop0-GUARD"),
}
both_firewalls = pytest.mark.parametrize("daemon", ["nftables", "iptables"], indirect=True)


@both_firewalls
def test_a_published_port_is_reached_from_everywhere(daemon: Networked, outside: Host) -> None:
    daemon.box("web", ports=WEB)
    daemon.box("other", "sleep", "1000")
    assert fetch("http://192.168.7.1:8080", outside) == "web"
    for address in ("127.0.0.1", "192.168.7.1", "[::1]", "localhost"):
        assert fetch(f"http://{address}:8080") == "web"
    for who in ("other", "web"):  # by the host, also itself
        assert daemon.within(who, "wget", "-qO-", "http://192.168.7.1:8080").strip() == "web"
    address = daemon.address_of("web")
    assert daemon.within("other", "wget", "-qO-", f"http://{address}").strip() == "web"
    assert refused("http://192.168.7.1:8081", outside)
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("", 8080))
    daemon.orlop("rm", "-f", "web")
    daemon.wait_for(lambda: daemon.gone("web"))
    assert refused("http://192.168.7.1:8080", outside)
    with socket.socket() as free:
        free.bind(("", 8080))


@both_firewalls
def test_containers_go_out_as_the_host_and_nobody_comes_in(
    daemon: Networked, outside: Host
) -> None:
    daemon.box("web")
    daemon.within("web", "ping", "-c", "1", "-W", "5", "192.168.7.2")
    address = daemon.address_of("web")
    outside.run("ip", "route", "add", "10.88.0.0/13", "via", "192.168.7.1")
    assert refused(f"http://{address}", outside)
    assert fetch(f"http://{address}") == "web"  # the host itself may
    mtu = re.search(r"eth0.*mtu (\d+)", daemon.within("web", "ip", "link"))
    assert mtu is not None and mtu[1] == "1500"


@both_firewalls
def test_the_host_s_loopback_is_its_own(daemon: Networked, tmp_path: Path) -> None:
    """Also for a container that is root enough to send its own loopback's packets out."""
    daemon.box("box", "sleep", "1000")
    inside = ("nsenter", f"--net=/proc/{daemon.pid_of('box')}/ns/net")
    run(*inside, "ip", "addr", "flush", "dev", "lo")
    run(*inside, "sysctl", "net.ipv4.conf.eth0.route_localnet=1")
    run(*inside, "ip", "route", "add", "127.0.0.0/8", "via", "10.88.0.1", "src",
        daemon.address_of("box"))  # fmt: skip
    (tmp_path / "index.html").write_text("private")
    serving = ["busybox", "httpd", "-f", "-p", "127.0.0.1:99", "-h", str(tmp_path)]
    with subprocess.Popen(serving) as listening:
        try:
            asking = ("curl", "-sS", "-m", "2", "http://127.0.0.1:99")
            daemon.wait_for(lambda: run(*asking, check=False).stdout == "private")
            assert run(*inside, *asking, check=False).stdout == ""
            run(*_GUARDS[daemon.firewall])  # it is this that keeps it so
            daemon.wait_for(lambda: run(*inside, *asking, check=False).stdout == "private")
        finally:
            listening.kill()


@both_firewalls
def test_networks_are_apart(daemon: Networked, outside: Host) -> None:
    one = daemon.create_network("one", subnets=["10.201.0.0/24"], labels={"a": "b"})
    daemon.create_network("inner", internal=True, mtu=1300)
    daemon.box("web1", networks=[{"network": "one", "ip": "10.201.0.77"}])
    daemon.box("near", networks=[{"network": one.id}])
    daemon.box("far")
    daemon.box("shut", networks=[{"network": "inner"}])
    daemon.box("shut2", networks=[{"network": "inner"}])
    assert daemon.within("near", "wget", "-qO-", "http://10.201.0.77").strip() == "web1"
    for who in ("far", "shut"):
        ping = daemon.orlop("exec", who, "ping", "-c1", "-W1", "10.201.0.77", check=False)
        assert ping.returncode == 1, ping.stdout
    ping = daemon.orlop("exec", "shut", "ping", "-c1", "-W1", "192.168.7.2", check=False)
    assert ping.returncode == 1, ping.stdout
    other = daemon.address_of("shut2")
    assert daemon.within("shut", "wget", "-qO-", f"http://{other}").strip() == "shut2"
    assert "mtu 1300" in daemon.within("shut", "ip", "link", "show", "eth0")


@both_firewalls
def test_both_families_and_udp_and_ranges(daemon: Networked, outside: Host) -> None:
    daemon.create_network("six", ipv6=True)
    lines = "nc -ll -p 91 -e echo first & nc -ll -p 92 -e echo second & "
    daemon.box(
        "web",
        "sh",
        "-c",
        lines + SERVE,
        networks=[{"network": "six", "ip6": "", "aliases": ["www"]}],
        ports=[
            *WEB,
            {"hostPort": 5300, "containerPort": 53, "protocol": "udp"},
            {"hostPort": 9001, "containerPort": 91, "count": 2, "hostIP": "192.168.7.1"},
            {"hostPort": 0, "containerPort": 80},
        ],
    )
    four, six = daemon.inspect("web").endpoints[0].addresses
    assert ":" in six
    daemon.box("near", "sleep", "1000", networks=[{"network": "six"}])
    daemon.wait_for(lambda: fetch(f"http://[{six}]") == "web")
    assert daemon.within("near", "wget", "-qO-", f"http://[{six}]").strip() == "web"
    assert daemon.within("near", "wget", "-qO-", "http://www.six").strip() == "web"  # by name
    daemon.within("near", "ping", "-6", "-c", "1", "-W", "5", "fd77::2")
    assert fetch("http://[fd77::1]:8080", outside) == fetch("http://[::1]:8080") == "web"
    for who in ("near", "web"):  # by the host, also itself
        assert daemon.within(who, "wget", "-qO-", "http://[fd77::1]:8080").strip() == "web"
    inside = f"--net=/proc/{daemon.pid_of('web')}/ns/net"
    with subprocess.Popen(
        ["nsenter", inside, sys.executable, "-c", _ECHO_BY_UDP], stdout=subprocess.PIPE
    ) as echo:
        assert echo.stdout is not None and echo.stdout.readline()
        assert outside.run(sys.executable, "-c", _ASK_BY_UDP).stdout == "hello\n"
    for number, word in ((9001, "first"), (9002, "second")):
        told = outside.run("busybox", "nc", "-w", "5", "192.168.7.1", str(number), check=False)
        assert told.stdout == f"{word}\n"
        local = run("busybox", "nc", "-w", "2", "127.0.0.1", str(number), check=False)
        assert local.returncode == 1  # published on one address only
    (free,) = [p.host_port for p in daemon.inspect("web").ports
               if p.container_port == 80 and p.host_port != 8080]  # fmt: skip
    assert fetch(f"http://192.168.7.1:{free}", outside) == "web"
    assert f"{four}\tweb www" in daemon.within("web", "cat", "/etc/hosts")


@both_firewalls
def test_who_sends_by_udp_all_the_time_reaches_the_next_container(
    daemon: Networked, outside: Host
) -> None:
    """Also who has begun when nobody published the port."""
    port = [{"hostPort": 5300, "containerPort": 53, "protocol": "udp"}]
    with subprocess.Popen(
        outside.command(sys.executable, "-u", "-c", _ASK_ON_BY_UDP), stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdout is not None
        try:
            for name in ("first", "second"):
                daemon.box(name, "sleep", "1000", ports=port)
                inside = f"--net=/proc/{daemon.pid_of(name)}/ns/net"
                with subprocess.Popen(
                    ["nsenter", inside, sys.executable, "-c", _NAME_BY_UDP, name],
                    stdout=subprocess.PIPE,
                ) as answering:
                    assert answering.stdout is not None and answering.stdout.readline()
                    while asking.stdout.readline() != name.encode() + b"\n":
                        pass
                    answering.kill()
                daemon.orlop("rm", "-f", name)
        finally:
            asking.kill()


def test_the_loopback_of_ipv6_leads_to_a_container(daemon: Networked, tmp_path: Path) -> None:
    """By a process of ours, to the last byte, also after a death of it or of its daemon."""
    ports: list[dict[str, Any]] = [
        {"hostPort": 9001, "containerPort": 91, "count": 2},
        {"hostPort": 9003, "containerPort": 91, "hostIP": "::1"},
        {"hostPort": 9004, "containerPort": 91, "hostIP": "127.0.0.1"},
        {"hostPort": 9005, "containerPort": 99},
    ]
    daemon.box("echo", "sh", "-c", "nc -ll -p 91 -e cat & exec nc -ll -p 92 -e cat", ports=ports)
    (tmp_path / "much").write_bytes(much := os.urandom(8 << 20))

    def echoed(port: int) -> bool:
        command = f"busybox nc ::1 {port} <{tmp_path}/much >{tmp_path}/back"
        return run("sh", "-c", command, check=False).returncode == 0 and (
            (tmp_path / "back").read_bytes() == much
        )

    for port in (9001, 9002, 9003):
        daemon.wait_for(lambda port=port: echoed(port))  # type: ignore[misc]
    assert not echoed(9004) and not echoed(9005)
    with socket.create_connection(("::1", 9001)) as talking:
        talking.sendall(b"a")
        assert talking.recv(1) == b"a"
        (server,) = run("pgrep", "-P", str(daemon.pid), "orlop-fork").stdout.split()
        (worker,) = run("pgrep", "-P", server, "orlop-loopback").stdout.split()
        kill(int(worker))
        assert talking.recv(1) == b""
        daemon.wait_for(lambda: echoed(9001))
    with socket.create_connection(("::1", 9001)) as talking:
        talking.sendall(b"a")
        assert talking.recv(1) == b"a"
        daemon.kill9()
        assert not echoed(9001)
        daemon.start()  # while that connection is not yet over
        daemon.wait_for(lambda: echoed(9001))
    daemon.orlop("rm", "-f", "echo")
    daemon.wait_for(lambda: daemon.gone("echo"))
    assert not echoed(9001)
    with socket.socket(socket.AF_INET6) as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("::", 9001))


def test_what_cannot_be_had_is_told_and_leaves_nothing(daemon: Networked) -> None:
    daemon.create_network("one", subnets=["10.201.0.0/30"])
    daemon.box("first", networks=[{"network": "one"}], ports=WEB)
    before = snapshot()
    for networks, ports, text in (
        ([{"network": "no"}], [], 'network "no": not found'),
        ([{"network": "one"}], [], "none of its 1 addresses left"),
        ([{"network": "bridge", "ip": "10.1.1.1"}], [], "none of a host in subnet"),
        ([{"network": "bridge"}], WEB, "port 8080/tcp of the host is taken"),
        ([{"network": "bridge", "mac": "xx"}], [], 'hardware address "xx"'),
        ([{"network": "bridge", "mac": "01:00:00:00:00:01"}], [], "of one interface"),
        ([], WEB, "in a network only"),
    ):
        done = daemon.box("second", networks=networks, ports=ports, check=False)
        assert done.returncode == 125 and text in done.stderr, done.stderr
        assert not daemon.inspect("second").endpoints
        assert daemon.orlop("ps", "-aq").stdout.split() == ["first"]
    assert [line for line in snapshot()["links"] if "veth" in line] == [
        line for line in before["links"] if "veth" in line
    ]
    assert fetch("http://192.168.7.1:8080") == "first"


def test_the_end_of_a_container_frees_all_and_a_start_takes_it_again(daemon: Networked) -> None:
    daemon.box("web", ports=WEB)
    first = daemon.address_of("web")
    daemon.orlop("stop", "-t", "0", "web")
    daemon.wait_for(lambda: daemon.gone("web"))
    assert refused("http://192.168.7.1:8080")
    daemon.orlop("start", "web")
    assert fetch("http://192.168.7.1:8080") == "web"
    assert daemon.address_of("web") != first  # which rests
    daemon.orlop("restart", "-t", "0", "web")
    assert fetch("http://192.168.7.1:8080") == "web"


def test_a_port_leads_to_networks_that_publish_only(daemon: Networked, outside: Host) -> None:
    daemon.create_network("shut", internal=True)
    daemon.create_network("open")
    daemon.box(
        "web", networks=[{"network": each} for each in ("bridge", "shut", "open")], ports=WEB
    )
    url = "http://192.168.7.1:8080"
    assert fetch(url, outside) == "web"
    daemon.orlop("network", "disconnect", "bridge", "web")
    assert fetch(url, outside) == "web" and fetch("http://[::1]:8080") == "web"
    daemon.orlop("network", "disconnect", "open", "web")
    assert not daemon.inspect("web").ports and refused(url, outside)
    with socket.socket() as free:
        free.bind(("", 8080))


def test_a_restart_policy_connects_again(daemon: Networked) -> None:
    daemon.box("web", ports=WEB, options=["--restart", "always"])
    pid = daemon.pid_of("web")
    kill(pid)
    daemon.wait_for(lambda: fetch("http://192.168.7.1:8080") == "web", 30)


def test_connections_outlive_the_daemon(daemon: Networked, outside: Host) -> None:
    daemon.box("web", ports=WEB)
    daemon.box("brief", "sleep", "1000")
    pid = daemon.pid_of("brief")
    daemon.kill9()
    assert fetch("http://192.168.7.1:8080", outside) == "web"
    kill(pid)
    run("nft", "flush", "ruleset")
    daemon.start()
    daemon.wait_for(lambda: fetch("http://192.168.7.1:8080", outside) == "web")
    daemon.wait_for(lambda: daemon.gone("brief"))
    assert not daemon.gone("web")
    with socket.socket() as taken, pytest.raises(OSError, match="in use"):
        taken.bind(("", 8080))
    done = daemon.box("second", ports=WEB, check=False)
    assert "taken" in done.stderr


def test_a_container_s_own_changes_outlive_the_daemon(daemon: Networked) -> None:
    daemon.create_network("six", ipv6=True)
    renamed = ("link set eth0 down name wan0", "link set wan0 up")
    daemon.keep_over_a_restart("six", renamed, ("link set eth0 down",))


def test_a_cable_of_somebody_else_s_stays_on_our_bridge(daemon: Networked) -> None:
    daemon.box("web")
    ours = "veth0123456789a"  # as a crash could have left it
    for name in ("theirs", ours):
        run("ip", "link", "add", name, "type", "veth", "peer", f"{name[:10]}-in")
        run("ip", "link", "set", name, "master", "orlop0")
    daemon.kill9()
    daemon.start()
    daemon.wait_for(lambda: f"{ours}@" not in run("ip", "link", "show").stdout)
    assert "theirs@" in run("ip", "link", "show", "master", "orlop0").stdout
    run("ip", "link", "del", "theirs")


@pytest.mark.timeout(600)
def test_kill9_at_any_moment_leaks_nothing(daemon: Networked) -> None:
    """Around the start of a container, its removal, and that of its network."""
    daemon.box("stays", ports=WEB)
    for number, delay in enumerate((0.1, 0.25, 0.35, 0.5)):
        name, network = f"box{number}", f"net{number}"
        daemon.orlop("network", "create", network)
        for words in (
            ("run", "-d", "--name", name, "--network", network, "-p", "80", BUSYBOX, "sleep", "99"),
            ("rm", "-f", name),
            ("network", "rm", network),
        ):
            with subprocess.Popen(
                daemon.orlop_command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as client:
                time.sleep(delay)
                daemon.kill9()
                client.wait()
            daemon.start()
    assert fetch("http://192.168.7.1:8080") == "stays"
    for name in daemon.orlop("ps", "-aq").stdout.split():
        if name != "stays":
            daemon.orlop("rm", "-f", name)
    daemon.orlop("network", "prune", "-f")
    cables = ("ip", "-br", "link", "show", "type", "veth")
    daemon.wait_for(lambda: len(run(*cables).stdout.splitlines()) == 2)  # its own, and the wire
    assert len(run("ip", "-br", "link", "show", "type", "bridge").stdout.splitlines()) == 1
    with daemon.connect() as connection:
        answer = connection.networks.inspect(wire.InspectRequest(network="bridge"))
    assert [each.container_id for each in answer.endpoints] == ["stays"]
    ruleset = run("nft", "list", "ruleset").stdout
    assert re.findall(r"(?:tcp|udp) \. \d+ :", ruleset) == ["tcp . 8080 :"]
    assert "br-" not in ruleset
