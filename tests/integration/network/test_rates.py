"""Limits to the rate of containers, by how much passes, with bounds that no busy machine breaks."""

from __future__ import annotations

import re

import pytest

from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.network import Kernel
from orlop.network.operations import AddLink, AddRateLimit, DeleteRateLimit, SetLink
from orlop.wire.services import network_pb2 as wire
from tests.daemon_fixture import BUSYBOX
from tests.integration.network.lab import Host, run
from tests.integration.network.networked import Networked

_SIZE = 1_000_000  # bytes, of which 64 KiB may pass at once
_LEAST = (_SIZE - 150_000) / 250_000  # seconds at 2 Mbit/s


def seconds(daemon: Networked, where: str, address: str) -> float:
    """How long a container takes to fetch a megabyte."""
    now = "cut -d' ' -f1 /proc/uptime"  # in there: how long it takes to begin says nothing
    script = f"{now}; wget -qO- http://{address}/big | wc -c; {now}"
    began, size, ended = daemon.within(where, "sh", "-c", script).split()
    assert size == str(_SIZE)
    return float(ended) - float(began)


def test_what_comes_in_and_what_goes_out(daemon: Networked) -> None:
    serve = f"mkdir /w; head -c {_SIZE} /dev/zero >/w/big; exec httpd -f -p 80 -h /w"
    slow = ("--network-burst", "64k", "--network", "bridge")
    for name, limits in (
        ("free", ()),
        ("sends", ("--network-rate-out", "2mbit", *slow)),
        ("gets", ("--network-rate-in", "2mbit", *slow)),
    ):
        daemon.orlop("run", "-d", "--name", name, *limits, BUSYBOX, "sh", "-c", serve)
        daemon.wait_until_it_serves(name)
    free, sends, gets = (daemon.address_of(name) for name in ("free", "sends", "gets"))
    assert seconds(daemon, "gets", free) > _LEAST
    assert seconds(daemon, "free", sends) > _LEAST
    shown = run("tc", "qdisc", "show").stdout  # of the host's ends: what comes in
    assert shown.count("tbf") == 1 and "rate 2Mbit" in shown
    # Neither is slow the other way, or those without a limit; most likely at once.
    for where, address in (("sends", free), ("free", gets), ("free", free)):
        assert any(seconds(daemon, where, address) < _LEAST for _ in range(5))


def test_limits_stay_over_a_restart_of_the_daemon(daemon: Networked) -> None:
    daemon.orlop("run", "-d", "--name", "box", "--network-rate-in", "3mbit", BUSYBOX, "sleep", "99")
    daemon.kill9()
    links = run("ip", "-br", "link", "show", "type", "veth").stdout
    cable = next(line.split("@")[0] for line in links.splitlines() if line.startswith("veth"))
    run("ip", "link", "del", cable)
    daemon.start()  # which makes the cable again
    daemon.wait_for(lambda: "rate 3Mbit" in run("tc", "qdisc", "show").stdout)


def test_a_network_that_is_joined_later_is_no_way_around_them(daemon: Networked) -> None:
    for name in ("back", "free"):
        daemon.create_network(name)
    limits = ("--network-rate-in", "5mbit", "--network-rate-out", "3mbit")
    daemon.orlop("run", "-d", "--name", "box", *limits, BUSYBOX, "sleep", "1000")

    def shown() -> tuple[list[str], list[str]]:
        """What is limited: on the host, and in the container."""
        inside = ("nsenter", f"--net=/proc/{daemon.pid_of('box')}/ns/net", "tc", "qdisc", "show")
        found = (run("tc", "qdisc", "show").stdout, run(*inside).stdout)
        ours, theirs = (re.findall(r"tbf .* dev (\S+) .* rate (\S+)", each) for each in found)
        return sorted(rate for _, rate in ours), sorted(f"{dev} {rate}" for dev, rate in theirs)

    daemon.orlop("network", "connect", "back", "box")
    both = (["5Mbit", "5Mbit"], ["eth0 3Mbit", "eth1 3Mbit"])
    assert shown() == both
    daemon.orlop("network", "connect", "--network-rate-out", "7mbit", "free", "box")
    three = (both[0], [*both[1], "eth2 7Mbit"])
    assert shown() == three
    daemon.orlop("restart", "-t", "0", "box")
    assert shown() == three
    daemon.orlop("network", "disconnect", "free", "box")
    daemon.orlop("network", "connect", "--network-rate-out", "0", "free", "box")
    assert shown() == both
    with daemon.connect() as connection:
        places = daemon.inspect("box").endpoints
        assert [each.rates.rate_out for each in places] == [3_000_000, 3_000_000, 0]
        rates = wire.Rates(rate_out=2_000_000)
        connection.networks.detach(wire.DetachRequest(container_id="box", network="free"))
        connection.networks.attach(
            wire.AttachRequest(container_id="box", network="free", rates=rates)
        )
    assert shown() == (both[0], [*both[1], "eth2 2Mbit"])


@pytest.mark.parametrize("rate", ["", "x", "0", "-1mbit", "1.5mbit", "10tbit"])
def test_what_is_no_rate(daemon: Networked, rate: str) -> None:
    done = daemon.orlop("run", f"--network-rate-in={rate}", BUSYBOX, "true", check=False)
    assert done.returncode == 125 and "is no rate as 500kbit" in done.stderr


def test_the_operations(kernel: Kernel, lab: object) -> None:
    def shown() -> str:
        return run("tc", "qdisc", "show", "dev", "lab0").stdout

    kernel.apply(AddLink(name="lab0", kind="veth", peer="lab1", up=True))
    kernel.apply(AddRateLimit(link="lab0", rate=10_000_000, burst=100_000))
    assert "tbf" in shown() and "rate 10Mbit" in shown() and "lat 100ms" in shown()
    with pytest.raises(AlreadyExists, match='limit the rate of interface "lab0"'):
        kernel.apply(AddRateLimit(link="lab0", rate=1_000_000))
    with pytest.raises(NotFound):  # undone: the limit is there again
        kernel.apply(
            DeleteRateLimit(link="lab0"),
            SetLink(name="none", up=True),
        )
    assert "rate 10Mbit" in shown()
    kernel.apply(DeleteRateLimit(link="lab0"))
    with pytest.raises(NotFound):
        kernel.apply(AddRateLimit(link="lab0", rate=5_000_000), SetLink(name="none", up=True))
    assert "tbf" not in shown()
    with pytest.raises(InvalidArgument):
        kernel.apply(AddRateLimit(link="lab0", rate=0))
    with pytest.raises(NotFound):
        kernel.apply(AddRateLimit(link="none", rate=10))
    kernel.apply(AddRateLimit(link="lab0", rate=20_000_000_000))
    assert "rate 20Gbit" in shown()


def test_outside_is_as_fast_as_ever(daemon: Networked, outside: Host) -> None:
    """A container without limits has no queue of ours."""
    daemon.box("web")
    assert "tbf" not in run("tc", "qdisc", "show").stdout
