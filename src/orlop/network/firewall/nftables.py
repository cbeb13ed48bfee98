"""nftables: one table of ours, in nftables' own language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from orlop.network.firewall.passage import Passage
from orlop.network.firewall.ruleset import SAMPLE, Published, Ruleset
from orlop.network.forwarding import KINDS
from orlop.network.kernel import Kernel
from orlop.network.model import Network

_FAMILY = {4: "ip", 6: "ip6"}


class Nftables:
    """The table `table` of the family inet, written whole in one transaction."""

    def __init__(self, kernel: Kernel, table: str) -> None:
        self._kernel = kernel
        self._table = table
        self._passage = Passage(kernel, table)

    def check(self) -> None:
        self._kernel.filter(render(self._table, SAMPLE), check=True)

    def make(self, ruleset: Ruleset) -> None:
        self._kernel.filter(render(self._table, ruleset), again=True)
        self._passage.make(ruleset, self._chains())

    def stands(self, ruleset: Ruleset) -> bool:
        chains = self._chains()  # who flushes takes the whole table away
        mine = f"table inet {self._table} {{" in chains.splitlines()
        return mine and self._passage.stands(ruleset, chains)

    def remove(self) -> None:
        self._kernel.filter(removal(self._table), again=True)
        self._passage.remove(self._chains())

    def _chains(self) -> str:
        """Of all tables, without their rules."""
        return self._kernel.filter("list chains", again=True)


def removal(table: str) -> str:
    """Take the table away; fine if it is not there."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def render(table: str, ruleset: Ruleset) -> str:
    """The commands that make the table what it should be."""
    networks = ruleset.networks
    lines = [
        *_maps(ruleset.published),
        *_chain("publish", "", _publish()),
        *_chain(
            "prerouting",
            "type nat hook prerouting priority dstnat",
            [*_to_names(ruleset), *_TO_PUBLISH],
        ),
        *_chain(
            "output",
            "type nat hook output priority -100",
            ["ip6 daddr ::1 return", *_TO_PUBLISH],  # see `orlop.network.loopback`
        ),
        *_chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            [line for each in networks for line in _masquerade(each)],
        ),
        *_chain(
            "guard",
            "type filter hook prerouting priority raw",
            [f'iifname "{each.bridge}" ip daddr 127.0.0.0/8 drop' for each in networks],
        ),
        *_chain(
            "forward",
            "type filter hook forward priority filter",
            [*_forward(networks), *_closed(ruleset)],
        ),
    ]
    body = "\n".join(f"  {line}" for line in lines)
    return f"{removal(table)}table inet {table} {{\n{body}\n}}\n"


_TO_PUBLISH = ["fib daddr type local jump publish"]


def _chain(name: str, hook: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"chain {name} {{"
    if hook:
        yield f"  {hook}; policy accept;" if "filter" in hook else f"  {hook};"
    yield from (f"  {rule}" for rule in rules)
    yield "}"


def _to_names(ruleset: Ruleset) -> Iterator[str]:
    """Port 53 of a gateway is another one for its containers: the host's own stays free."""
    for each in ruleset.networks:
        for subnet in each.subnets:
            asked = f'iifname "{each.bridge}" {_FAMILY[subnet.version]} daddr {subnet.gateway}'
            for protocol, port in ruleset.names_of(subnet):
                yield f"{asked} {protocol} dport 53 redirect to :{port}"


def _publish() -> Iterator[str]:
    for version, family in _FAMILY.items():
        yield f"dnat {family} to meta l4proto . {family} daddr . th dport map @at{version}"
        yield f"dnat {family} to meta l4proto . th dport map @any{version}"


def _maps(published: Sequence[Published]) -> Iterator[str]:
    """From protocol and port of the host, and its address if it is named, to a container's."""
    for version in _FAMILY:
        kind = f"ipv{version}_addr"
        at: dict[str, str] = {}
        everywhere: dict[str, str] = {}
        for each in published:
            for key, host, target in _elements(each, version):
                if host:
                    at[f"{key[0]} . {host} . {key[1]}"] = target
                else:
                    everywhere[f"{key[0]} . {key[1]}"] = target
        target = f"{kind} . inet_service"
        yield from _map(f"at{version}", f"inet_proto . {kind} . inet_service : {target}", at)
        yield from _map(f"any{version}", f"inet_proto . inet_service : {target}", everywhere)


def _map(name: str, kind: str, elements: Mapping[str, str]) -> Iterator[str]:
    yield f"map {name} {{"
    yield f"  type {kind}"
    if elements:
        yield f"  elements = {{ {', '.join(f'{key} : {to}' for key, to in elements.items())} }}"
    yield "}"


def _elements(each: Published, version: int) -> Iterator[tuple[tuple[str, int], str, str]]:
    port = each.port
    for address in each.addresses_of(version):
        for step in range(port.count):
            key = (port.protocol, port.host_port + step)
            yield key, port.host_address, f"{address} . {port.container_port + step}"


def _masquerade(network: Network) -> Iterator[str]:
    """Who goes out does so as the host; and so does who comes back in by a published port."""
    bridge = f'"{network.bridge}"'
    for subnet in network.subnets:
        source = f"{_FAMILY[subnet.version]} saddr {subnet.subnet}"
        if not network.internal:
            yield f"{source} oifname != {bridge} masquerade"
        yield f"ct status dnat {source} oifname {bridge} masquerade"
    yield f"ip saddr 127.0.0.0/8 oifname {bridge} masquerade"


def _forward(networks: Sequence[Network]) -> Iterator[str]:
    if not networks:
        return
    ours = ", ".join(f'"{each.bridge}"' for each in networks)
    yield "ct state established,related accept"
    for each in networks:
        yield f'iifname "{each.bridge}" oifname "{each.bridge}" accept'
    for each in networks:
        if each.internal:
            yield f'iifname "{each.bridge}" drop'
    yield f"ct status dnat oifname {{ {ours} }} accept"
    yield f"oifname {{ {ours} }} drop"


def _closed(ruleset: Ruleset) -> Iterator[str]:
    """Last, and only where the host is a router for our sake: hardware is of no kind at all.

    What stays on one bridge comes here as well where the kernel has iptables see it.
    """
    kinds = ", ".join(f'"{each}"' for each in KINDS)
    for version, known in ruleset.strange():
        family = f"meta nfproto ipv{version}"
        names = ", ".join(f'"{each}"' for each in known)
        if known:
            same = ", ".join(f'"{each}" . "{each}"' for each in known)
            yield f"{family} iifname . oifname {{ {same} }} accept"
        for way in ("iif", "oif"):
            others = f" {way}name != {{ {names} }}" if known else ""
            yield f"{family}{others} meta {way}kind {{ {kinds} }} accept"
        yield f"{family} drop"
