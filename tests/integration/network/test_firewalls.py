"""iptables where nftables does not work: which one it is, and nothing left of the other."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orlop.errors import FailedPrecondition
from orlop.network import Kernel
from orlop.network.firewall import Published, Ruleset, xtables
from orlop.network.firewall.iptables import Iptables
from orlop.network.firewall.nftables import Nftables
from orlop.network.firewall.ruleset import SAMPLE
from orlop.network.model import Port
from tests.integration.network.lab import Host, Lab, prepare_iptables, run
from tests.integration.network.networked import Networked, fetch

PORTS = [{"hostPort": 8080, "containerPort": 80}]
_LEGACY = Path("/usr/sbin/xtables-legacy-multi")


def _rules(*programs: str) -> str:
    """Those of ours, or all that iptables knows."""
    return "".join(
        line
        for program in programs or ("iptables-save", "ip6tables-save")
        for line in run(program).stdout.splitlines(keepends=True)
        if not line.startswith("#")
    )


def test_iptables_has_it_until_nftables_is_there(
    daemon: Networked, outside: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the old iptables, which is not nftables in disguise."""
    daemon.stop()
    (tmp_path / "libnftables.so.1").write_text("what is no library is not loaded")
    for program in ("iptables", "ip6tables"):
        for ending in ("save", "restore"):
            (tmp_path / f"{program}-{ending}").symlink_to(_LEGACY)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with monkeypatch.context() as without:
        without.setenv("LD_LIBRARY_PATH", str(tmp_path))
        daemon.start()
    legacy = ("iptables-legacy-save", "ip6tables-legacy-save")
    daemon.create_network("six", ipv6=True)
    daemon.box("web", ports=PORTS, networks=[{"network": "six"}])
    for url in ("http://192.168.7.1:8080", "http://[fd77::1]:8080"):
        assert fetch(url, outside) == "web"
    assert "orlop0" not in run("nft", "list", "ruleset").stdout
    assert all("-PORTS" in _rules(program) for program in legacy)
    daemon.kill9()
    assert fetch("http://192.168.7.1:8080", outside) == "web"
    daemon.start()
    daemon.wait_for(lambda: "table inet orlop0" in run("nft", "list", "ruleset").stdout)
    daemon.wait_for(lambda: "ORLOP" not in _rules(*legacy))
    assert fetch("http://192.168.7.1:8080", outside) == "web"


@pytest.mark.parametrize("daemon", ["iptables"], indirect=True)
def test_rules_of_others_are_asked_before_anybody_goes_out(
    daemon: Networked, outside: Host
) -> None:
    theirs = ("FORWARD", "-d", "192.168.7.2", "-j", "DROP")
    run("iptables", "-A", *theirs)
    run("iptables", "-P", "FORWARD", "DROP")
    daemon.box("web", "sleep", "1000")
    ping = ("ping", "-c1", "-W1", "192.168.7.2")
    assert daemon.orlop("exec", "web", *ping, check=False).returncode == 1
    run("iptables", "-D", *theirs)
    daemon.within("web", "ping", "-c1", "-W20", "192.168.7.2")
    run("iptables", "-P", "FORWARD", "ACCEPT")


@pytest.mark.parametrize("daemon", ["nftables"], indirect=True)
@pytest.mark.slow
def test_a_policy_that_forwards_nothing_stops_no_container(
    daemon: Networked, outside: Host
) -> None:
    """Of iptables, beside which our own rules are of nftables; whoever has come first."""
    programs = ("iptables", "ip6tables")
    theirs = ("FORWARD", "-d", "192.168.7.2", "-j", "DROP")
    run("iptables", "-A", *theirs)
    for each in programs:
        run(each, "-P", "FORWARD", "DROP")
    daemon.create_network("six", ipv6=True)
    daemon.create_network("inner", internal=True)
    daemon.box("web", ports=PORTS, networks=[{"network": "six"}])
    daemon.box("shut", "sleep", "1000", networks=[{"network": "inner"}])
    ping = ("ping", "-c1", "-W1", "192.168.7.2")
    assert daemon.orlop("exec", "web", *ping, check=False).returncode == 1
    run("iptables", "-D", *theirs)
    daemon.within("web", "ping", "-c1", "-W20", "192.168.7.2")
    daemon.within("web", "ping", "-6", "-c1", "-W20", "fd77::2")
    assert daemon.orlop("exec", "shut", *ping, check=False).returncode == 1
    for url in ("http://192.168.7.1:8080", "http://[fd77::1]:8080"):
        assert fetch(url, outside) == "web"
    for each in programs:
        run(each, "-P", "FORWARD", "ACCEPT")
    daemon.wait_for(lambda: "ORLOP" not in _rules(), 30)
    run("iptables", "-P", "FORWARD", "DROP")
    daemon.wait_for(lambda: daemon.orlop("exec", "web", *ping, check=False).returncode == 0, 30)
    run("iptables", "-F", "FORWARD")
    daemon.wait_for(lambda: daemon.orlop("exec", "web", *ping, check=False).returncode == 0, 30)
    daemon.prune()
    assert "ORLOP" not in _rules()
    for family in ("ip", "ip6"):
        run("nft", "delete", "table", family, "filter")


@pytest.mark.parametrize("daemon", ["nftables", "iptables"], indirect=True)
def test_what_docker_leaves_to_the_policy_is_not_reached(daemon: Networked, lab: Lab) -> None:
    """Ports of its containers that are not published, as Docker before 28 has them."""
    theirs = lab.neighbour("172.17.0.1/16", "172.17.0.2/16", "docker0")
    theirs.run("ip", "route", "add", "default", "via", "172.17.0.1")
    out = ("FORWARD", "-o", "docker0")
    rules = (
        (*out, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
        (*out, "-p", "tcp", "--dport", "81", "-j", "ACCEPT"),
        ("FORWARD", "-i", "docker0", "!", "-o", "docker0", "-j", "ACCEPT"),
    )
    for each in rules:
        run("iptables", "-A", *each)
    run("iptables", "-P", "FORWARD", "DROP")
    daemon.box("web", ports=PORTS)
    ping = ("ping", "-c1", "-W2")
    daemon.within("web", "ping", "-c1", "-W20", "192.168.7.2")
    assert daemon.orlop("exec", "web", *ping, "172.17.0.2", check=False).returncode == 1
    asked = daemon.orlop("exec", "web", "nc", "-w5", "172.17.0.2", "81", check=False)
    assert "refused" in asked.stderr  # by the container: nobody listens, but it has been asked
    assert fetch("http://172.17.0.1:8080", theirs) == "web"
    for each in rules:
        run("iptables", "-D", *each)
    run("iptables", "-P", "FORWARD", "ACCEPT")
    daemon.prune()
    run("ip", "link", "delete", "docker0")
    if daemon.firewall == "nftables":
        run("nft", "delete", "table", "ip", "filter")


_FLUSHES = {
    "nftables": ["nft flush ruleset"],
    "iptables": [f"{each} -t {table} -F" for each in ("iptables", "ip6tables")
                 for table in ("filter", "nat", "raw")],
}  # fmt: skip
_SIGNS = {
    "nftables": {"table inet orlop0": 1},
    "iptables": {"-A FORWARD -j ORLOP-orlop0-": 2, "-A ORLOP-orlop0-": 9, "-j MASQUERADE": 3},
}


@pytest.mark.parametrize("daemon", ["nftables", "iptables"], indirect=True)
def test_what_others_flush_is_made_again(daemon: Networked, outside: Host) -> None:
    """By the next who comes, and after a while without anybody."""
    daemon.box("one", "sleep", "1000")

    def is_there() -> bool:
        found = run("nft", "list", "ruleset").stdout + _rules("iptables-save")
        return all(found.count(sign) >= least for sign, least in _SIGNS[daemon.firewall].items())

    def flush() -> None:
        for command in _FLUSHES[daemon.firewall]:
            run(*command.split())

    assert is_there()
    flush()
    daemon.box("two", "sleep", "1000")
    assert is_there()
    flush()
    daemon.wait_for(is_there, 30)
    daemon.within("one", "ping", "-c1", "-W20", "192.168.7.2")


def _published(*addresses: str, protocol: str = "tcp") -> Ruleset:
    ports = [Port(container_port=80, host_port=each, protocol=protocol) for each in (80, 81)]
    return Ruleset(SAMPLE.networks, [Published(each, addresses) for each in ports], SAMPLE.names)


def test_a_death_at_any_step_is_made_up_for(
    kernel: Kernel, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_iptables()
    run("iptables", "-A", "FORWARD", "-j", "DROP")
    before = _rules()
    chains = Iptables(kernel, "orlop0")
    chains.make(_published("192.0.2.2", "2001:db8::2"))
    after = _rules()
    assert after.count("-j DNAT") == 4
    order = ("ORLOP-orlop0-FWD", "DROP", "ORLOP-orlop0-EXIT")
    places = [after.index(f"-A FORWARD -j {each}") for each in order]
    assert places == sorted(places)
    chains.make(_published("192.0.2.2", "2001:db8::2"))
    assert _rules() == after
    monkeypatch.setattr(kernel, "set_chains", xtables.set_chains)  # here, where it can be stopped
    actions: tuple[Callable[[], object], ...] = (
        chains.remove,
        lambda: chains.make(_published("192.0.2.3")),
    )
    for action in actions:
        steps = 0
        while _stopped(action, steps, monkeypatch):
            steps += 1
            chains.make(_published("192.0.2.2", "2001:db8::2"))
            assert _rules() == after
        assert steps > 3
    chains.remove()
    assert _rules() == before


def test_the_way_out_of_one_is_not_behind_what_another_drops(kernel: Kernel, lab: Lab) -> None:
    """Two daemons on a host that was no router: the first one's last rule drops all the rest."""
    prepare_iptables()
    shut = Ruleset(SAMPLE.networks, closed={4: ()})
    Iptables(kernel, "one").make(shut)
    run("iptables", "-I", "FORWARD", "-s", "192.0.2.9", "-j", "DROP")
    Iptables(kernel, "two").make(_published("192.0.2.2"))
    jumps = [line for line in _rules("iptables-save").splitlines() if "-A FORWARD" in line]
    assert [line.split()[-1] for line in jumps] == [
        "ORLOP-two-FWD",
        "DROP",
        "ORLOP-one-FWD",
        "ORLOP-two-EXIT",
        "ORLOP-one-EXIT",
    ]
    before = _rules()
    Iptables(kernel, "one").make(shut)
    assert _rules() == before


@pytest.mark.parametrize("backend", [Iptables, Nftables])
def test_comments_in_any_encoding_are_no_matter(
    kernel: Kernel, lab: Lab, backend: type[Iptables | Nftables]
) -> None:
    prepare_iptables()
    for chain in ("INPUT", "FORWARD"):
        run("iptables", "-A", chain, "-m", "comment", "--comment", os.fsdecode(b"caf\xe9"))
    run("iptables", "-P", "FORWARD", "DROP")
    run(
        "nft",
        os.fsdecode(b'add table inet t { comment "caf\xe9"; chain c { comment "caf\xe9"; }; }'),
    )
    assert b"caf\xe9" in subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    made = backend(kernel, "orlop0")
    made.make(SAMPLE)
    assert (
        made.stands(SAMPLE)
        and "-A FORWARD -j ORLOP-orlop0-"
        in subprocess.run(
            ["iptables-save"], capture_output=True, check=True, encoding="latin-1"
        ).stdout
    )


class _Death(Exception):
    pass


def _stopped(action: Callable[[], object], steps: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the action was, before this many programs had been run."""
    real, left = xtables._run, iter(range(steps))

    def counted(*arguments: str, **options: Any) -> str:
        if next(left, None) is None:
            raise _Death
        return real(*arguments, **options)

    with monkeypatch.context() as counting, suppress(_Death):
        counting.setattr(xtables, "_run", counted)
        action()
        return False
    return True


def test_a_refusal_is_told_and_no_port_leads_anywhere(kernel: Kernel, lab: Lab) -> None:
    prepare_iptables()
    before = _rules()
    with pytest.raises(FailedPrecondition, match=r'iptables-restore refuses: .*"nonsense"'):
        Iptables(kernel, "orlop0").make(_published("192.0.2.2", protocol="nonsense"))
    assert "-j DNAT" not in _rules() and "MASQUERADE" not in _rules()
    Iptables(kernel, "orlop0").remove()
    Iptables(kernel, "orlop0").check()
    assert _rules() == before
