"""A network namespace for one test, other hosts beside it, and what is in them."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from orlop.sys.process import CLONE_NEWNET, setns, unshare
from tests.patience import patient

_OWN = "/proc/thread-self/ns/net"
_BUILT_IN = {
    "filter": ("FORWARD",),
    "raw": ("PREROUTING",),
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
}


class Host:
    """Another host: a process that sleeps in a network namespace of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._process.stdout.close()

    @property
    def ns(self) -> str:
        return f"/proc/{self._process.pid}/ns/net"

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--net={self.ns}", *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*self.command(*command), check=check)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Lab:
    """The test's namespace; it closes the hosts beside it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.hosts: list[Host] = []

    def host(self) -> Host:
        made = Host()
        self._stack.callback(made.close)
        self.hosts.append(made)
        return made

    def neighbour(self, here: str, there: str, link: str = "wire") -> Host:
        """A host on a cable: our end has the address `here`, its end `there`, with prefixes."""
        host = self.host()
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns",
            host.ns.split("/")[2])  # fmt: skip
        ends = ((run, link, here), (host.run, "eth0", there))
        for inside, name, _ in ends:
            inside("ip", "link", "set", name, "addrgenmode", "none", "up")
        for inside, name, address in ends:
            while "state UP" not in inside("ip", "link", "show", name).stdout:
                time.sleep(0.01)  # its routes would come later than its address otherwise
            inside("ip", "addr", "add", address, "dev", name)
        return host


@contextmanager
def own_network() -> Iterator[Lab]:
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            run("ip", "link", "set", "lo", "up")
            forward("1")  # as Docker has left it; for a host that does not see `test_forwarding`
            with ExitStack() as stack:
                yield Lab(stack)
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def run(*command: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program, which reads `text`; with `check`, its failure fails the test."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=patient(60), check=False
    )
    if check:
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return done


def forward(value: str) -> None:
    """Have this host forward packets, or not."""
    run("sysctl", "-qw", f"net.ipv4.ip_forward={value}", f"net.ipv6.conf.all.forwarding={value}")


def prepare_iptables() -> None:
    """Have the tables and built-in chains that come with somebody's first rule, and stay."""
    for program in ("iptables", "ip6tables"):
        for table, chains in _BUILT_IN.items():
            for chain, action in itertools.product(chains, ("-A", "-D")):
                run(program, "-t", table, action, chain, "-j", "ACCEPT")


def snapshot() -> dict[str, list[str]]:
    """Interfaces, addresses, routes and rules of this namespace, as tools show them."""
    shown = {
        "links": ["ip", "-br", "link"],
        "addresses": ["ip", "-br", "addr"],
        "routes": ["ip", "route", "show", "table", "all"],
        "rules": ["ip", "rule"],
        "filter": ["nft", "list", "ruleset"],
    }
    found = {name: run(*command).stdout.splitlines() for name, command in shown.items()}
    # What comes with forwarding, which stays on, or when the kernel gets around to it.
    own = ("anycast", "multicast")
    found["routes"] = [line for line in found["routes"] if not line.startswith(own)]
    return found
