"""Fixtures: a network of the test's own, in which no host's interface is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from orlop.fork.client import ForkServer
from orlop.network import Kernel, PinnedNamespaces
from tests.integration.network.lab import Host, Lab, own_network, prepare_iptables, run, snapshot
from tests.integration.network.networked import Networked

Daemon = TypeVar("Daemon", bound=Networked)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """This thread, and what it starts, is in a network namespace of the test's own meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_network() as made:
        yield made


@pytest.fixture
def forks(lab: Lab) -> Iterator[ForkServer]:
    """At home in the test's namespace."""
    made = ForkServer(("orlop.fork.worker",))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def kernel(forks: ForkServer) -> Iterator[Kernel]:
    """The library."""
    made = Kernel(forks, idle=1.0)
    yield made
    made.close()


@pytest.fixture
def pins(kernel: Kernel, tmp_path: Path) -> Iterator[PinnedNamespaces]:
    """Named namespaces, all gone at the end."""
    made = PinnedNamespaces(tmp_path / "netns", kernel)
    yield made
    for name in made.names("test"):
        made.delete("test", name)


@contextmanager
def serving(made: Daemon, lab: Lab, archive: Path) -> Iterator[Daemon]:
    """An orlopd in the test's namespace, with the small image; it must leave that as it was."""
    other = lab.neighbour("192.168.7.1/24", "192.168.7.2/24")
    run("ip", "addr", "add", "fd77::1/64", "dev", "wire", "nodad")
    other.run("ip", "addr", "add", "fd77::2/64", "dev", "eth0", "nodad")
    for table, route in (("local", "local fd77::1 "), ("main", "fd77::/64 ")):
        while route not in run("ip", "-6", "route", "show", "table", table).stdout:
            time.sleep(0.01)  # the kernel makes them in its own time
    before = snapshot()
    try:
        made.start()
        made.ctr("images", "import", str(archive))
        yield made
        made.prune()
        assert snapshot() == before, (snapshot(), before)
        made.close()
    finally:
        made.discard()


@pytest.fixture
def daemon(lab: Lab, busybox_archive: Path, request: pytest.FixtureRequest) -> Iterator[Networked]:
    """With the packet filter of its parameter, if it has one: see `both_firewalls`."""
    firewall = getattr(request, "param", "")
    if firewall == "iptables":
        prepare_iptables()
    with serving(Networked(firewall=firewall), lab, busybox_archive) as made:
        yield made


@pytest.fixture
def outside(lab: Lab, daemon: Networked) -> Host:
    """A host on a cable that knows no way to the containers: we are 192.168.7.1, it is .2."""
    return lab.hosts[0]
