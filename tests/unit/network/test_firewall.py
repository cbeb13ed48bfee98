"""Rulesets as nftables and iptables read them, and which of the two is used."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orlop.errors import FailedPrecondition, Unavailable
from orlop.network.firewall import (
    AUTO,
    Firewall,
    Published,
    Ruleset,
    iptables,
    nftables,
    no_dockers,
)
from orlop.network.firewall.passage import Passage
from orlop.network.firewall.ruleset import SAMPLE
from orlop.network.firewall.xtables import changes
from orlop.network.model import Chain, Network, Port, Subnet

ONE = Network(id="1", namespace="n", name="one", bridge="orlop0",
              subnets=(Subnet("10.1.0.0/24", "10.1.0.1"),))  # fmt: skip
TWO = Network(id="2", namespace="n", name="two", bridge="br-2", internal=True,
              subnets=(Subnet("fd00:1::/64", "fd00:1::1"),))  # fmt: skip
PORT = Port(container_port=80, host_port=8080, count=2, host_address="127.0.0.1")
WAY_OUT = (
    "-i orlop0 -o docker0 -j RETURN",
    "-i orlop0 -o br-+ -j RETURN",
    "-i orlop0 -j ACCEPT",
)
RULESET = Ruleset(
    [ONE, TWO], [Published(PORT, ["10.1.0.2", "fd00::2"])], {"10.1.0.1": (40000, 40001)}
)


def test_nftables_says_who_may_go_where() -> None:
    text = nftables.render("orlop0", RULESET)
    asked = 'iifname "orlop0" ip daddr 10.1.0.1'
    assert f"{asked} udp dport 53 redirect to :40000" in text
    assert f"{asked} tcp dport 53 redirect to :40001" in text
    assert "tcp . 127.0.0.1 . 8080 : 10.1.0.2 . 80, tcp . 127.0.0.1 . 8081 : 10.1.0.2 . 81" in text
    assert 'ip saddr 10.1.0.0/24 oifname != "orlop0" masquerade' in text
    assert 'fd00:1::/64 oifname != "br-2"' not in text
    assert "fd00::2" not in text
    assert text.index('iifname "br-2" drop') < text.index('oifname { "orlop0", "br-2" } drop')


def test_nothing_else_is_forwarded_where_the_host_was_no_router() -> None:
    """But for containers of others, on interfaces that have come later; ours is no stranger."""
    closed = Ruleset([ONE], closed={4: ("br0", "orlop0"), 6: ()})
    text = nftables.render("orlop0", closed)
    kinds = 'kind { "bridge", "veth" } accept'
    rules = [
        'meta nfproto ipv4 iifname . oifname { "br0" . "br0" } accept',
        f'meta nfproto ipv4 iifname != {{ "br0" }} meta iif{kinds}',
        f'meta nfproto ipv4 oifname != {{ "br0" }} meta oif{kinds}',
        "meta nfproto ipv4 drop",
        f"meta nfproto ipv6 meta iif{kinds}",
        f"meta nfproto ipv6 meta oif{kinds}",
        "meta nfproto ipv6 drop",
    ]
    assert [line.strip() for line in text.splitlines() if "nfproto" in line] == rules
    assert text.index('oifname { "orlop0" } drop') < text.index(rules[0])
    assert "meta nfproto ipv4 drop" in nftables.render("orlop0", Ruleset(closed={4: ()}))
    assert "nfproto" not in nftables.render("orlop0", RULESET)
    assert _chains(4, closed)["ORLOP-x-EXIT"] == (
        *WAY_OUT,
        "-i br0 -o br0 -j ACCEPT",
        "-j DROP",
    )


def test_a_policy_of_iptables_is_seen_and_lets_ours_pass() -> None:
    listed = (
        "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter;"
        " policy {};\n\t}\n}\ntable inet orlop0 {\n\tchain forward {\n\t\ttype filter hook"
        " forward priority filter; policy accept;\n\t}\n}\n"
    )
    made: list[tuple[int, Chain]] = []
    kernel: Any = SimpleNamespace(
        set_chains=lambda version, chains: made.append((version, *chains))
    )
    Passage(kernel, "x").make(RULESET, listed.replace("{}", "accept"))
    assert not made
    Passage(kernel, "x").make(RULESET, listed.replace("{}", "drop"))
    rules = (
        "-o orlop0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        "-i orlop0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-i orlop0 -o orlop0 -j ACCEPT",
        *WAY_OUT,
    )
    chain = Chain("filter", "ORLOP-x-PASS", "FORWARD", rules, last=True, policy="DROP")
    assert made == [(4, chain)]
    saved = "*filter\n:FORWARD {} [0:0]\n-A FORWARD -j THEIRS\nCOMMIT\n"
    assert changes(saved.replace("{}", "ACCEPT"), [chain]) == ""
    there = changes(saved.replace("{}", "DROP"), [chain]).splitlines()
    assert there[-2] == "-A FORWARD -j ORLOP-x-PASS"
    again = "*filter\n:FORWARD ACCEPT [0:0]\n:ORLOP-x-PASS - [0:0]\n-A FORWARD -j ORLOP-x-PASS\n"
    assert changes(again, [chain]).splitlines()[2:] == [
        "-D FORWARD -j ORLOP-x-PASS",
        "-X ORLOP-x-PASS",
        "COMMIT",
    ]


def test_a_refusal_of_iptables_is_not_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been busy."""
    listed = (
        "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter;"
        " policy drop;\n\t}\n}\n"
    )
    now, refusing, made = time.monotonic(), True, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def set_chains(*_: Any) -> None:
        nonlocal made
        made += 1
        if refusing:
            raise Unavailable("busy")

    kernel: Any = SimpleNamespace(set_chains=set_chains, has_chains=lambda *_: made == 3)
    passage = Passage(kernel, "x")
    passage.make(RULESET, listed)
    assert passage.stands(RULESET, listed)  # or all would be made anew, time after time
    assert made == 1
    now += 1000
    assert passage.stands(RULESET, listed)
    assert passage.stands(RULESET, listed)
    assert made == 2
    now, refusing = now + 1000, False
    assert passage.stands(RULESET, listed)
    assert made == 3
    made = 4
    assert not passage.stands(RULESET, listed)  # as it is no longer refused


def test_a_chain_of_somebodys_own_is_not_iptables_and_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listed = (
        "table ip filter {\n\tchain mine {\n\t\ttype filter hook forward priority 0; policy drop;"
    )
    Passage(SimpleNamespace(), "x").make(RULESET, listed)  # type: ignore[arg-type]
    assert 'chain "mine" in table ip filter forwards nothing' in caplog.text


def test_a_bridge_with_a_name_like_dockers_may_be_the_way_out() -> None:
    links = ["eth0", "br-lan", "br-0123456789ab", "br-a b", "docker0"]
    bridges = no_dockers(links)
    assert bridges == ["br-lan"]
    exits = _chains(4, Ruleset([ONE], bridges=bridges))["ORLOP-x-EXIT"]
    assert exits == ("-i orlop0 -o br-lan -j ACCEPT", *WAY_OUT)


def _chains(version: int, ruleset: Ruleset = RULESET) -> dict[str, tuple[str, ...]]:
    return {each.name: each.rules for each in iptables.render("x", ruleset, version)}


def test_iptables_says_it_too() -> None:
    four, six = _chains(4), _chains(6)
    asked = "-i orlop0 -d 10.1.0.1"
    assert four["ORLOP-x-IN"] == (
        f"{asked} -p udp --dport 53 -j REDIRECT --to-ports 40000",
        f"{asked} -p tcp --dport 53 -j REDIRECT --to-ports 40001",
        "-m addrtype --dst-type LOCAL -j ORLOP-x-PORTS",
    )
    assert four["ORLOP-x-PORTS"] == (
        "-p tcp -d 127.0.0.1 --dport 8080 -j DNAT --to 10.1.0.2:80",
        "-p tcp -d 127.0.0.1 --dport 8081 -j DNAT --to 10.1.0.2:81",
    )
    assert "-s 10.1.0.0/24 ! -o orlop0 -j MASQUERADE" in four["ORLOP-x-POST"]
    assert not six["ORLOP-x-IN"] and not six["ORLOP-x-PORTS"] and not six["ORLOP-x-GUARD"]
    assert six["ORLOP-x-POST"] == (
        "-s fd00:1::/64 -o br-2 -m conntrack --ctstate DNAT -j MASQUERADE",
    )
    assert "orlop0" not in str(six)
    forward = six["ORLOP-x-FWD"]
    assert forward.index("-i br-2 -o br-2 -j ACCEPT") < forward.index("-i br-2 -j DROP")
    assert four["ORLOP-x-EXIT"] == WAY_OUT and not six["ORLOP-x-EXIT"]
    assert "-i orlop0 -j ACCEPT" not in four["ORLOP-x-FWD"]


def test_one_address_of_the_host_comes_before_all_and_a_range_is_one_rule() -> None:
    everywhere = Published(Port(container_port=90, host_port=90, count=9), ["fd00::2"])
    here = Published(Port(container_port=1, host_port=95, host_address="fd77::1"), ["fd00::3"])
    assert _chains(6, Ruleset([TWO], [everywhere, here]))["ORLOP-x-PORTS"] == (
        "-p tcp -d fd77::1 --dport 95 -j DNAT --to [fd00::3]:1",
        "-p tcp --dport 90:98 -j DNAT --to fd00::2",
    )


def test_names_of_chains_fit() -> None:
    assert all(len(each.name) <= 28 for each in iptables.render("x" * 15, SAMPLE, 4))


_SAVED = """# Generated
*nat
:PREROUTING ACCEPT [1:2]
:THEIRS - [0:0]
:OURS - [0:0]
:OLD - [0:0]
-A PREROUTING -j THEIRS
-A PREROUTING -j OURS
-A OUTPUT -j OLD
-A OUTPUT -j OLD
-A OURS -j RETURN
COMMIT
"""


def test_jumps_stay_where_they_are_and_what_is_gone_is_gone() -> None:
    ours = Chain("nat", "OURS", "PREROUTING", ("-j ACCEPT",))
    old = Chain("nat", "OLD", "OUTPUT")
    new = Chain("filter", "NEW", "FORWARD", ("-j DROP",))
    last = Chain("filter", "LAST", "FORWARD", ("-j ACCEPT",), last=True)
    assert changes(_SAVED, [ours, old, new, last]).splitlines() == [
        "*nat",
        ":OURS - [0:0]",
        ":OLD - [0:0]",
        "-A OURS -j ACCEPT",
        "-D OUTPUT -j OLD",
        "-D OUTPUT -j OLD",
        "-X OLD",
        "COMMIT",
        "*filter",
        ":NEW - [0:0]",
        ":LAST - [0:0]",
        "-A NEW -j DROP",
        "-I FORWARD -j NEW",
        "-A LAST -j ACCEPT",
        "-A FORWARD -j LAST",
        "COMMIT",
    ]
    assert changes(_SAVED, [Chain("nat", "NEVER", "OUTPUT"), Chain("raw", "OURS", "")]) == ""


class _Backend:
    """One that fails, if it is told to, and notes what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def make(self, ruleset: Ruleset) -> None:
        self.asked.append("make")

    def stands(self, ruleset: Ruleset) -> bool:
        return True

    def remove(self) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append("remove")


def test_another_choice_removes_what_the_first_has_made(tmp_path: Path) -> None:
    one, two = _Backend(FailedPrecondition("no one")), _Backend()
    memory = tmp_path / "memory"

    def firewall(wanted: str = AUTO) -> Firewall:
        return Firewall({"one": one, "two": two}, wanted, memory)

    firewall().remove()  # nothing has been made
    firewall().make(RULESET)
    assert not one.asked and two.asked == ["make"]
    with pytest.raises(FailedPrecondition, match="no packet filter works here: no one"):
        firewall("one").make(RULESET)
    one.error = None
    firewall().make(RULESET)  # it has been installed meanwhile
    assert two.asked == ["make", "remove"] and one.asked == ["make"]
    firewall("two").remove()
    assert one.asked == ["make", "remove"]
    one.error = Unavailable("the worker has died")
    with pytest.raises(Unavailable):  # which says nothing about what works
        firewall().make(RULESET)


def test_what_could_not_be_removed_is_not_forgotten(tmp_path: Path) -> None:
    one, two = _Backend(), _Backend()
    memory = tmp_path / "memory"

    def firewall(wanted: str) -> Firewall:
        return Firewall({"one": one, "two": two}, wanted, memory)

    firewall("one").make(RULESET)
    one.error = FailedPrecondition("uninstalled")
    used = firewall("two")
    used.make(RULESET)
    used.remove()  # of the other one it is only said
    assert two.asked == ["make", "remove"] and one.asked == ["make"]
    with pytest.raises(FailedPrecondition, match="uninstalled"):
        firewall("two").remove()
    one.error = None
    used.make(RULESET)
    firewall("two").make(RULESET)
    assert one.asked == ["make", "remove"]
    firewall("one").remove()
    assert two.asked[-1] == "remove" and not memory.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["memory"]
