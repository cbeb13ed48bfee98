"""Names of containers by DNS, with the clients that containers have and real upstreams."""

from __future__ import annotations

import re
import signal
import sys
from functools import partial
from pathlib import Path

from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, run
from tests.integration.network.name_servers import LONG, dnsmasq, hostile
from tests.integration.network.networked import Networked
from tests.killing import kill

UPSTREAM = "192.168.7.2"
_MANY = """
import os, select, socket, sys
count, name = int(sys.argv[1]), sys.argv[2]
parts = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
waiting = {}
poll = select.poll()
for number in range(count):
    asking = socket.socket(type=socket.SOCK_DGRAM)
    asking.connect((sys.argv[3], 53))
    waiting[asking.fileno()] = (number, asking)
    poll.register(asking, select.POLLIN)
for number, asking in waiting.values():
    head = number.to_bytes(2) + bytes.fromhex("01000001000000000000")
    asking.send(head + parts + bytes.fromhex("0000010001"))
answers = 0
while waiting and (ready := poll.poll(20000)):
    for fd, _ in ready:
        number, asking = waiting.pop(fd)
        poll.unregister(fd)
        data = asking.recv(4096)
        answers += data[:2] == number.to_bytes(2) and data[3] & 15 == 0 and data[7] == 1
print(answers)
"""


class Box:
    """A container as those see it that ask from its place, also without a daemon."""

    def __init__(self, daemon: Networked, name: str) -> None:
        self.pid = daemon.pid_of(name)
        self._resolv_conf = f"/proc/{self.pid}/root/etc/resolv.conf"
        found = re.search(r"nameserver (\S+)", Path(self._resolv_conf).read_text())
        assert found is not None
        self._server = found[1]

    def run(self, *command: str) -> str:
        """What a program of the host prints in the container's network."""
        return run("nsenter", f"--net=/proc/{self.pid}/ns/net", *command, check=False).stdout

    def dig(self, *words: str) -> str:
        """All that dig has to say of the container's name server."""
        return self.run("dig", "+tries=1", "+time=15", f"@{self._server}", *words)

    def short(self, *words: str) -> list[str]:
        """The answers alone, sorted."""
        return sorted(self.dig("+short", *words).split())

    def getent(self, name: str) -> set[str]:
        """What glibc finds there."""
        copied = f"mount -t tmpfs none /mnt; cp {self._resolv_conf} /mnt"
        script = f"{copied}; mount --bind /mnt/resolv.conf /etc/resolv.conf; getent ahosts {name}"
        lines = self.run("unshare", "-m", "sh", "-c", script).splitlines()
        return {line.split()[0] for line in lines}


def dns_process() -> int:
    """Its pid, whoever listens on the port that the ruleset names; 0 if nobody does."""
    found = re.search(rf":{port()}\s.*pid=(\d+)", run("ss", "-Hulnp").stdout)
    return int(found[1]) if found is not None else 0


def port(protocol: str = "udp") -> str:
    """The port to which queries are redirected."""
    ruleset = run("nft", "list", "chain", "inet", "orlop0", "prerouting").stdout
    found = re.search(rf"{protocol} dport 53 redirect to :(\d+)", ruleset)
    return found[1] if found is not None else "none"


def test_containers_find_each_other_by_name(daemon: Networked) -> None:
    daemon.create_network("back", ipv6=True)
    both = [{"network": "bridge", "aliases": ["store"]}, {"network": "back", "aliases": ["Data"]}]
    daemon.box("web")
    web = Box(daemon, "web")
    daemon.box("db", networks=both)
    daemon.box("db2", networks=[{"network": "bridge", "aliases": ["store"]}])
    db2 = Box(daemon, "db2")
    address = daemon.address_of("db")
    back = daemon.inspect("db").endpoints[1].addresses
    assert len(back) == 2
    for name in ("db", "DB", "db.bridge"):
        assert daemon.within("web", "wget", "-qO-", f"http://{name}").strip() == "db"
        assert web.short(name) == sorted(web.getent(name)) == [address]
    assert f"Address: {address}" in daemon.within("web", "nslookup", "db")
    two = sorted([address, daemon.address_of("db2")])
    assert web.short("store") == two
    assert {web.dig("+short", "store").split()[0] for _ in range(4)} == set(two)
    assert web.short("-x", address) == ["db.bridge."]
    assert db2.short("+tcp", "store") == two
    assert "status: NOERROR" in (text := web.dig("db", "AAAA")) and "ANSWER: 0" in text
    # Another network's names are not to be had, and IPv6 is where it is.
    assert web.short("data") == []
    daemon.box("near", networks=[{"network": "back"}])
    near = Box(daemon, "near")
    assert near.short("data", "AAAA") == [back[1]]
    assert near.getent("data") == set(back)
    assert near.short("-x", back[1]) == ["db.back."]


def test_names_come_and_go(daemon: Networked) -> None:
    daemon.create_network("inner", internal=True)
    daemon.box("web", networks=[{"network": "inner"}])
    web = Box(daemon, "web")
    daemon.box("db")
    db = Box(daemon, "db")
    assert "NXDOMAIN" in web.dig("db")  # internal: nobody else is asked
    daemon.orlop("network", "connect", "--alias", "store", "inner", "db")
    for name in ("db", "store", "db.inner"):
        assert len(web.short(name)) == 1
    assert len(db.short("web")) == 1
    daemon.orlop("rename", "db", "base")
    daemon.wait_for(lambda: len(web.short("base")) == 1)
    daemon.orlop("network", "disconnect", "inner", "base")
    assert "NXDOMAIN" in web.dig("base")
    daemon.orlop("network", "connect", "inner", "base")
    assert len(web.short("base")) == 1
    daemon.orlop("stop", "-t", "0", "base")
    daemon.wait_for(lambda: "NXDOMAIN" in web.dig("base"))
    daemon.orlop("start", "base")
    assert len(web.short("base")) == 1


def test_a_container_s_files_follow_it_from_network_to_network(daemon: Networked) -> None:
    for name in ("one", "two"):
        daemon.create_network(name)
    daemon.box("db", networks=[{"network": "two"}])
    daemon.box("web", networks=[{"network": "one"}])
    daemon.box("own", networks=[{"network": "one"}])
    daemon.within("web", "sh", "-c", "echo 10.9.9.9 mine >>/etc/hosts")
    daemon.within("own", "sh", "-c", "echo nameserver 10.9.9.9 >/etc/resolv.conf")
    for name in ("web", "own"):
        daemon.orlop("network", "connect", "--alias", "front", "two", name)
    one, two = (each.addresses[0] for each in daemon.inspect("web").endpoints)
    hosts = daemon.within("web", "cat", "/etc/hosts").splitlines()
    assert f"{one}\tweb front" in hosts and f"{two}\tweb front" in hosts
    daemon.restart()
    for name in ("web", "own"):
        daemon.orlop("network", "disconnect", "one", name)
    assert daemon.within("web", "wget", "-qO-", "http://db").strip() == "db"
    hosts = daemon.within("web", "cat", "/etc/hosts").splitlines()
    assert f"{two}\tweb front" in hosts and "10.9.9.9 mine" in hosts
    assert not any(line.startswith(f"{one}\t") for line in hosts)
    assert daemon.within("own", "cat", "/etc/resolv.conf") == "nameserver 10.9.9.9\n"


def test_who_begins_without_a_network_has_names_with_its_first_one(daemon: Networked) -> None:
    daemon.box("db")
    gateway = "nameserver 10.88.0.1"
    box = ("run", "-d", "--name", "late", "--network", "none", BUSYBOX, "sleep", "1000")
    daemon.orlop(*box)
    before = daemon.within("late", "cat", "/etc/resolv.conf", "/etc/hosts")
    assert "localhost" in before and gateway not in before
    daemon.orlop("network", "connect", "bridge", "late")
    assert gateway in daemon.within("late", "cat", "/etc/resolv.conf").splitlines()
    assert daemon.within("late", "wget", "-qO-", "http://db").strip() == "db"
    daemon.orlop("network", "disconnect", "bridge", "late")
    assert daemon.within("late", "cat", "/etc/resolv.conf", "/etc/hosts") == before


def test_everything_else_is_asked_of_the_upstream(daemon: Networked, outside: Host) -> None:
    with dnsmasq(UPSTREAM, *LONG, "--edns-packet-max=4096", host=outside):
        daemon.box("web", dns=[UPSTREAM])
        web = Box(daemon, "web")
        for how in ((), ("+tcp",), ("+noedns",)):
            assert web.short(*how, "www.example.test") == ["203.0.113.7"]
        assert daemon.address_of("web") in web.short("web")
        assert web.getent("www.example.test") == {"203.0.113.7"}
        assert "NXDOMAIN" in web.dig("no.test")
        cut = web.dig("+ignore", "+noedns", "long.test", "TXT")
        assert re.search(r"flags: [^;]*\btc\b", cut)
        assert web.dig("+noedns", "long.test", "TXT").count("x" * 200) == 12  # by TCP
        whole = web.dig("+ignore", "+bufsize=4096", "long.test", "TXT")
        assert whole.count("x" * 200) == 12 and "(UDP)" in whole
    assert "SERVFAIL" in web.dig("www.example.test")  # nobody there: told at once


def test_another_upstream_is_asked_when_one_says_nothing(daemon: Networked, outside: Host) -> None:
    outside.run("ip", "addr", "add", "192.168.7.3/24", "dev", "eth0")
    with hostile(UPSTREAM, outside), dnsmasq("192.168.7.3", host=outside):
        daemon.box("web", dns=["192.168.7.99", UPSTREAM, "192.168.7.3"])
        web = Box(daemon, "web")
        for name in ("silent", "servfail", "bare", "truncated"):
            expected = [] if name == "truncated" else ["203.0.113.7"]
            asking = ("+ignore", f"{name}.example.test")
            daemon.wait_for(partial(_answered, web, asking, expected))
        # Of 4.5 s, who says nothing takes 3.
        daemon.wait_for(lambda: web.short("+tcp", "garbage.example.test") == ["203.0.113.7"])


def _answered(web: Box, asking: tuple[str, ...], expected: list[str]) -> bool:
    return web.short(*asking) == expected


def test_lies_are_not_believed(daemon: Networked, outside: Host) -> None:
    with hostile(UPSTREAM, outside):
        daemon.box("web", dns=[UPSTREAM])
        web = Box(daemon, "web")
        for name in ("garbage", "wrongid", "wrongname", "plain"):
            assert web.short(f"{name}.test") == ["203.0.113.66"], name
        assert "SERVFAIL" in web.dig("servfail.test")
        assert "SERVFAIL" in web.dig("silent.test")  # before the client gives up
        assert web.short("plain.test") == ["203.0.113.66"]


def test_a_host_s_own_name_server_is_not_in_the_way(daemon: Networked) -> None:
    """Whichever comes first."""
    with dnsmasq("", "--no-hosts"):  # of all addresses
        daemon.box("web")
        web = Box(daemon, "web")
        assert len(web.short("web")) == 1
    with dnsmasq(""):
        assert len(web.short("web")) == 1
        assert run("dig", "@127.0.0.1", "+short", "a.example.test").stdout == "203.0.113.7\n"


def test_whoever_is_in_no_network_is_refused(daemon: Networked, outside: Host) -> None:
    daemon.box("web")
    outside.run("ip", "route", "add", "10.88.0.0/13", "via", "192.168.7.1")
    asked = outside.run("dig", "@10.88.0.1", "-p", port(), "+tries=1", "+time=15", "web")
    assert "REFUSED" in asked.stdout
    tcp = port("tcp")
    asked = outside.run("dig", "@10.88.0.1", "-p", tcp, "+tcp", "+tries=1", "web", check=False)
    assert "REFUSED" not in asked.stdout and "ANSWER" not in asked.stdout  # left at once


def test_names_outlive_the_daemon_and_the_process(daemon: Networked, outside: Host) -> None:
    with dnsmasq(UPSTREAM, host=outside):
        daemon.box("web", dns=[UPSTREAM])
        web = Box(daemon, "web")
        daemon.box("db", networks=[{"network": "bridge", "aliases": ["store"]}])
        db = Box(daemon, "db")
        first = dns_process()
        daemon.kill9()
        assert len(web.short("store")) == 1
        assert web.short("www.example.test") == ["203.0.113.7"]
        kill(db.pid)
        daemon.start()
        daemon.wait_for(lambda: web.short("store") == [])  # it has ended meanwhile
        assert dns_process() == first  # found again
        daemon.orlop("start", "db")
        assert len(web.short("store")) == 1

        kill(first)
        daemon.wait_for(lambda: dns_process() not in (0, first))
        assert len(web.short("store")) == 1
        second = dns_process()
        daemon.kill9()
        kill(second)
        daemon.start()
        daemon.wait_for(lambda: dns_process() not in (0, second))
        assert len(web.short("store")) == 1
        assert web.short("www.example.test") == ["203.0.113.7"]
        daemon.stop()
        assert len(web.short("store")) == 1
        daemon.start()


def test_a_process_that_nobody_needs_ends_after_a_crash(daemon: Networked) -> None:
    daemon.box("web")
    web, process = Box(daemon, "web"), dns_process()
    daemon.kill9()
    kill(web.pid)
    daemon.wait_for(lambda: not Path(f"/proc/{web.pid}").exists())  # its shim knows
    assert Path(f"/proc/{process}").exists()
    daemon.start()
    daemon.wait_for(lambda: not Path(f"/proc/{process}").exists())
    daemon.wait_for(lambda: not (daemon.state / "dns.sock").exists())  # a step later


def test_containers_start_without_names_which_come_later(daemon: Networked) -> None:
    """A folder is where the socket is to be."""
    (daemon.state / "dns.sock" / "in the way").mkdir(parents=True)
    daemon.box("web")
    daemon.box("db")
    assert "names: the DNS process has not begun" in daemon.log.read_text()
    (daemon.state / "dns.sock" / "in the way").rmdir()
    (daemon.state / "dns.sock").rmdir()
    daemon.wait_for(lambda: dns_process() != 0, 60)
    web = Box(daemon, "web")
    daemon.wait_for(lambda: len(web.short("web")) == len(web.short("db")) == 1)


def test_a_process_that_hangs_is_replaced(daemon: Networked) -> None:
    daemon.box("web")
    web, first = Box(daemon, "web"), dns_process()
    kill(first, signal.SIGSTOP)
    daemon.box("db")
    daemon.wait_for(lambda: dns_process() not in (0, first))
    daemon.wait_for(lambda: len(web.short("db")) == len(web.short("web")) == 1)
    kill(first)


def test_a_thousand_queries_at_once(daemon: Networked, outside: Host) -> None:
    daemon.box("web", dns=[UPSTREAM])
    web = Box(daemon, "web")
    assert web.run(sys.executable, "-c", _MANY, "1000", "web", "10.88.0.1") == "1000\n"
    with dnsmasq(UPSTREAM, host=outside):
        asking = (sys.executable, "-c", _MANY, "1000", "a.example.test", "10.88.0.1")
        daemon.wait_for(lambda: web.run(*asking) == "1000\n", 80)  # who is asked has 4.5 s


def test_hostile_queries_are_survived(daemon: Networked) -> None:
    daemon.box("web")
    web = Box(daemon, "web")
    before = dns_process()
    for script in (_GARBAGE, _POINTERS, _HANG_UP):
        assert web.run(sys.executable, "-c", script) == "done\n"
        assert len(web.short("web")) == 1
        assert dns_process() == before
    daemon.box("db")  # the daemon is heard all the while
    assert len(web.short("db")) == 1
    assert "Traceback" not in daemon.log.read_text()


_GARBAGE = """
import os, socket
with socket.socket(type=socket.SOCK_DGRAM) as asking:
    asking.connect(("10.88.0.1", 53))
    for number in range(3000):
        asking.send(os.urandom(number % 200))
        asking.send(os.urandom(2) + bytes.fromhex("01000001000000000001") + os.urandom(number % 60))
held = [socket.create_connection(("10.88.0.1", 53)) for _ in range(200)]
for each in held[:50]:
    try:
        each.sendall(b"\\xff\\xff" + os.urandom(3000))
    except OSError:
        pass
print("done")
"""

_POINTERS = """
import socket
head = b"\\1\\2\\1\\0" + bytes.fromhex("00010000000000ff") + b"\\3web\\0\\0\\1\\0\\1"
ends = bytes.fromhex("00290400000000000000")
chain = b"".join((0xC000 | 17 + 2 * each).to_bytes(2) for each in range(800))
many = head + b"\\0" + ends[:8] + len(chain).to_bytes(2) + chain
many += (0xC000 | 1600).to_bytes(2).join([ends] * 254)
circle = head + b"\\xc0\\x17\\xc0\\x15" + bytes(910)
with socket.socket(type=socket.SOCK_DGRAM) as asking:
    asking.connect(("10.88.0.1", 53))
    for count in (b"\\2", b"\\xff"):
        for packet in (many, many * 4, circle):
            for _ in range(30):
                asking.send(packet[:11] + count + packet[12:])
print("done")
"""

_HANG_UP = """
import socket, struct
query = b"\\1\\2\\1\\0" + bytes.fromhex("0001000000000000") + b"\\3web\\0\\0\\1\\0\\1"
for _ in range(50):
    with socket.create_connection(("10.88.0.1", 53)) as asking:
        asking.sendall((len(query).to_bytes(2) + query) * 200)
        asking.shutdown(socket.SHUT_WR)  # so that the reset is a broken pipe to the other side
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print("done")
"""
