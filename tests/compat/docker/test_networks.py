"""Networks and volumes of dockerd, which lives on hooks and namespaces of the daemon below."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.docker.dockerd import Dockerd

pytestmark = pytest.mark.root

SERVE = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www"


def serve(dockerd: Dockerd, name: str, *options: str) -> None:
    """A container with a web server, which tells its name."""
    dockerd.docker("run", "-d", "--name", name, "--hostname", name, *options, "busybox", "sh", "-c",
                   SERVE)  # fmt: skip


def test_default_bridge_and_published_ports(dockerd: Dockerd) -> None:
    serve(dockerd, "boat", "--publish", "127.0.0.1:8080:80", "--publish", "9090-9091:90-91/udp")
    address = dockerd.inspect("boat")["NetworkSettings"]["IPAddress"]
    fetch = "until wget -qO- {}; do sleep 0.1; done"
    assert dockerd.out("run", "--rm", "busybox", "sh", "-c", fetch.format(address)) == "boat"
    host = dockerd.out(
        "run", "--rm", "--network", "host", "busybox", "sh", "-c", fetch.format("127.0.0.1:8080")
    )
    assert host == "boat"
    assert "127.0.0.1:8080" in dockerd.out("port", "boat", "80")
    assert "9091" in dockerd.out("port", "boat", "91/udp")


_ANSWER = """
import select, socket
stream = socket.create_server(("", 80))
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind(("", 90))
print("ready", flush=True)
while True:
    for each in select.select([stream, datagrams], [], [])[0]:
        if each is stream:
            client, peer = each.accept()
            with client:
                client.sendall(peer[0].encode())
        else:
            _, peer = each.recvfrom(100)
            each.sendto(peer[0].encode(), peer)
"""
_ASK = """
import socket, sys
host, stream, datagrams = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((host, stream), 30) as client:
    print(client.recv(100).decode())
with socket.socket(type=socket.SOCK_DGRAM) as client:
    client.settimeout(1)
    for _ in range(30):
        client.sendto(b"who am I?", (host, datagrams))
        try:
            print(client.recv(100).decode())
            break
        except TimeoutError:
            pass
"""


def test_packets_from_another_host(dockerd: Dockerd) -> None:
    """They reach a published port as they come, not through a process of dockerd."""
    here, there = "10.99.0.1", "10.99.0.2"
    python = (sys.executable, "-c")
    with dockerd.harbour.neighbour(here, there) as other:
        dockerd.sleeper("boat", "--publish", "8080:80", "--publish", f"{here}:9090:90/udp")
        pid = str(dockerd.inspect("boat")["State"]["Pid"])
        inside = ["nsenter", "--target", pid, "--net", *python, _ANSWER]
        with subprocess.Popen(inside, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                told = other.run(*python, _ASK, here, "8080", "9090").split()
            finally:
                server.kill()
        assert told == [there, there]
        dockerd.docker("rm", "-f", "boat")


def test_host_and_no_network(dockerd: Dockerd) -> None:
    namespace = "readlink /proc/self/ns/net"
    on_host = dockerd.out("run", "--rm", "--network", "host", "busybox", *namespace.split())
    assert on_host == dockerd.harbour.run("readlink", "/proc/self/ns/net").strip()
    names = dockerd.out("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net")
    assert names == "lo"


def test_network_of_ones_own(dockerd: Dockerd) -> None:
    """Names are found, aliases too; who is connected later is in it as well."""
    dockerd.docker("network", "create", "--subnet", "10.77.0.0/24", "--label", "sea=north", "lane")
    serve(dockerd, "boat", "--network", "lane", "--network-alias", "vessel", "--ip", "10.77.0.9")
    dockerd.sleeper("ship")
    unknown = dockerd.docker("exec", "ship", "wget", "-qO-", "vessel", check=False)
    assert "bad address" in unknown.stderr
    dockerd.docker("network", "connect", "lane", "ship")
    fetch = "until wget -qO- {}; do sleep 0.1; done"
    for name in ("boat", "vessel", "10.77.0.9"):
        assert dockerd.out("exec", "ship", "sh", "-c", fetch.format(name)) == "boat"
    shown = json.loads(dockerd.out("network", "inspect", "lane"))[0]
    assert len(shown["Containers"]) == 2
    busy = dockerd.docker("network", "rm", "lane", check=False)
    assert "active endpoints" in busy.stderr
    ping = ("exec", "ship", "ping", "-c1")
    dockerd.docker(*ping, "-W20", "10.77.0.9")
    dockerd.docker("network", "disconnect", "lane", "ship")
    assert dockerd.docker(*ping, "-W1", "10.77.0.9", check=False).returncode
    dockerd.docker("rm", "-f", "boat")
    assert dockerd.out("network", "ls", "-q", "--filter", "label=sea=north")
    dockerd.docker("network", "rm", "lane")


def test_names_of_others_and_hosts(dockerd: Dockerd) -> None:
    shown = dockerd.out(
        "run", "--rm", "--add-host", "port:10.1.2.3", "--dns", "10.9.9.9", "--dns-search", "sea",
        "--mac-address", "02:42:aa:bb:cc:dd", "busybox", "sh", "-c",
        "cat /etc/hosts /etc/resolv.conf /sys/class/net/eth0/address",
    )  # fmt: skip
    for text in ("10.1.2.3\tport", "nameserver 10.9.9.9", "search sea", "02:42:aa:bb:cc:dd"):
        assert text in shown


def test_a_network_namespace_that_is_shared(dockerd: Dockerd) -> None:
    serve(dockerd, "boat")
    command = "until wget -qO- 127.0.0.1; do sleep 0.1; done"
    shown = dockerd.out(
        "run", "--rm", "--network", "container:boat", "busybox", "sh", "-c", command
    )
    assert shown == "boat"


def test_volumes(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.docker("volume", "create", "--label", "deck=low", "hold")
    dockerd.docker("run", "--rm", "-v", "hold:/home", "busybox", "touch", "/home/tea")
    # What the image has in that place was copied into the new volume.
    assert dockerd.out("run", "--rm", "-v", "hold:/x", "busybox", "ls", "/x") == "sailor\ntea"
    dockerd.docker("volume", "create", "--driver", "local", "--opt", "type=none", "--opt", "o=bind",
                   "--opt", f"device={tmp_path}", "bound")  # fmt: skip
    dockerd.docker("run", "--rm", "-v", "bound:/x", "busybox", "touch", "/x/note")
    assert (tmp_path / "note").exists()
    dockerd.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "quick")
    dockerd.sleeper("boat", "-v", "quick:/x")
    dockerd.docker("run", "--rm", "--volumes-from", "boat", "busybox", "touch", "/x/shared")
    assert dockerd.out("exec", "boat", "ls", "/x") == "shared"
    used = dockerd.docker("volume", "rm", "quick", check=False)
    assert "volume is in use" in used.stderr
    dockerd.docker("rm", "-fv", "boat")
    assert dockerd.out("volume", "ls", "-q", "--filter", "label=deck=low") == "hold"
    assert dockerd.out("volume", "rm", "hold", "bound", "quick").split() == [
        "hold", "bound", "quick"
    ]  # fmt: skip
