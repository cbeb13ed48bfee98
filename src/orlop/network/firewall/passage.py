"""The way past a policy that forwards nothing, as Docker and ufw give iptables' FORWARD one.

What `nftables` accepts is accepted for its own table only: where iptables is used as well, its
policy is the end of what nobody there speaks for. So a chain does that FORWARD jumps to last:
others' rules are asked first, and what is to be dropped of ours our own table drops anyway.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from orlop.errors import OrlopError
from orlop.network.firewall.ruleset import Ruleset
from orlop.network.forwarding import is_plain
from orlop.network.kernel import Kernel
from orlop.network.model import Chain, Network

_TABLES = {4: "table ip filter {", 6: "table ip6 filter {"}
_OLD = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
_DOCKER = ("docker0", "br-+")
_DOCKERS = re.compile("br-[0-9a-f]{12}")
_HOOK = "FORWARD"
_AGAIN = 60  # seconds
_log = logging.getLogger(__name__)


class Passage:
    """The chain ORLOP-NAME-PASS, which is there only as long as the policy is DROP."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self._name = f"ORLOP-{name}-PASS"
        self._told: set[str] = set()
        self._refused: dict[int, float] = {}  # when

    def make(self, ruleset: Ruleset, chains: str) -> None:
        """`chains` are all of nftables as it lists them, which has those of iptables as well.

        What iptables refuses is logged: containers that go nowhere may still talk to each other.
        """
        self._tell_of_others(chains)
        for version in self._concerned(chains):
            try:
                self._kernel.set_chains(version, [self._chain(ruleset, version)])
                self._refused.pop(version, None)
            except OrlopError as error:
                self._refused[version] = time.monotonic()
                self._tell(f"containers may not get out, by the policy of FORWARD: {error}")

    def stands(self, ruleset: Ruleset, chains: str) -> bool:
        """Whether it is as it is to be.

        What has been refused does not count; after a while it is tried again.
        """
        try:
            return all(self._stands(ruleset, version) for version in self._concerned(chains))
        except OrlopError:
            return False  # which `make` finds out as well, and tells

    def _stands(self, ruleset: Ruleset, version: int) -> bool:
        chains = [self._chain(ruleset, version)]
        refused = self._refused.get(version)
        if refused is None:
            return self._kernel.has_chains(version, chains)
        if time.monotonic() > refused + _AGAIN:  # it may have been for what others did just then
            with suppress(OrlopError):
                self._kernel.set_chains(version, chains)
                del self._refused[version]
                return True
            self._refused[version] = time.monotonic()
        return True

    def remove(self, chains: str) -> None:
        for version in _TABLES:
            if f"chain {self._name} " in chains or _is_old(version):
                self._kernel.set_chains(version, [self._chain(Ruleset(), version)])

    def _chain(self, ruleset: Ruleset, version: int) -> Chain:
        rules = tuple(_rules(ruleset, version))
        return Chain("filter", self._name, _HOOK, rules, last=True, policy="DROP")

    def _concerned(self, chains: str) -> Iterator[int]:
        """The versions of IP that iptables filters, by nftables or as it did of old."""
        for version, table in _TABLES.items():
            closed = (table, _HOOK) in _closing(chains)
            if closed or f"chain {self._name} " in chains or _is_old(version):
                yield version

    def _tell_of_others(self, chains: str) -> None:
        for table, chain in _closing(chains):
            if table not in _TABLES.values() or chain != _HOOK:
                where = f'chain "{chain}" in {table.removesuffix(" {")}'
                self._tell(f"{where} forwards nothing but what it is told: let our bridges pass")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            _log.warning("%s", text)


def way_out(ruleset: Ruleset, network: Network) -> Iterator[str]:
    """What comes from a network goes everywhere, but to Docker's containers as Docker says.

    Before 28 it leaves those of their ports that are not published to the policy. Other bridges may
    be called like Docker's, by one of which the host itself may be in its network.
    """
    for name in ruleset.bridges:
        yield f"-i {network.bridge} -o {name} -j ACCEPT"
    for name in _DOCKER:
        yield f"-i {network.bridge} -o {name} -j RETURN"
    yield f"-i {network.bridge} -j ACCEPT"


def no_dockers(links: Iterable[str]) -> list[str]:
    """Those of the interfaces that are called like Docker's bridges, but no network's number."""
    return [e for e in links if e.startswith("br-") and not _DOCKERS.fullmatch(e) and is_plain(e)]


def _rules(ruleset: Ruleset, version: int) -> Iterator[str]:
    networks = [e for e in ruleset.networks if any(s.version == version for s in e.subnets)]
    for each in networks:
        yield f"-o {each.bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
        yield f"-i {each.bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield f"-i {each.bridge} -o {each.bridge} -j ACCEPT"
    for each in networks:
        if not each.internal:
            yield from way_out(ruleset, each)


def _closing(chains: str) -> Iterator[tuple[str, str]]:
    """The tables and chains whose policy lets nothing be forwarded."""
    table = chain = ""
    for line in chains.splitlines():
        if line.startswith("table "):
            table = line
        elif line.startswith("\tchain "):
            chain = line.split()[1]
        elif " hook forward " in line and "policy drop" in line:
            yield table, chain


def _is_old(version: int) -> bool:
    try:
        return "filter" in _OLD[version].read_text().split()
    except OSError:
        return False
