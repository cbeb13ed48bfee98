"""iptables and ip6tables: chains of ours, to which the built-in ones jump first.

What nftables does with a table of its own, `nftables`, and in the same order. But these tables
are everybody's, and the first verdict is the last. So what goes out of our networks is accepted by
a chain to which FORWARD jumps last: a policy that forwards nothing would stop it, but the rules of
others, who keep their own networks apart, are asked before. And so they are where nothing else is
to be forwarded (`Ruleset.closed`): what they let pass passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orlop.network.bridge import HAS_IPV6
from orlop.network.firewall.passage import way_out
from orlop.network.firewall.ruleset import SAMPLE, Published, Ruleset
from orlop.network.kernel import Kernel
from orlop.network.model import Chain, Network

_VERSIONS = (4, 6) if HAS_IPV6 else (4,)
_LAST = "EXIT"


class Iptables:
    """Chains called ORLOP-NAME-…, `name` being at most 15 characters long."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self._name = name

    def check(self) -> None:
        self._kernel.set_chains(4, render(self._name, SAMPLE, 4), check=True)

    def make(self, ruleset: Ruleset) -> None:
        for version in _VERSIONS:
            self._kernel.set_chains(version, render(self._name, ruleset, version))

    def stands(self, ruleset: Ruleset) -> bool:
        return all(
            self._kernel.has_chains(version, render(self._name, ruleset, version))
            for version in _VERSIONS
        )

    def remove(self) -> None:
        self.make(Ruleset())


def render(name: str, ruleset: Ruleset, version: int) -> list[Chain]:
    """All chains, as they should be for one version of IP; what keeps apart comes first."""
    networks = [
        each for each in ruleset.networks if any(s.version == version for s in each.subnets)
    ]
    ports = f"ORLOP-{name}-PORTS"
    published = [rule for each in _by_address(ruleset) for rule in _dnat(each, version)]
    to_ports = [f"-m addrtype --dst-type LOCAL -j {ports}"] if published else []
    not_loopback = ["-d ::1 -j RETURN"] if version == 6 else []  # see `orlop.network.loopback`
    wanted = (
        ("filter", "FWD", "FORWARD", _forward(networks)),
        (
            "filter",
            _LAST,
            "FORWARD",
            [*_exit(networks, ruleset), *_closed(ruleset, version)],
        ),
        ("raw", "GUARD", "PREROUTING", _guard(networks) if version == 4 else ()),
        ("nat", "PORTS", "", published),
        ("nat", "IN", "PREROUTING", [*_to_names(networks, ruleset, version), *to_ports]),
        ("nat", "OUT", "OUTPUT", [*(not_loopback if to_ports else ()), *to_ports]),
        ("nat", "POST", "POSTROUTING", [x for n in networks for x in _masquerade(n, version)]),
    )
    return [
        Chain(table, f"ORLOP-{name}-{suffix}", hook, tuple(rules), last=suffix == _LAST)
        for table, suffix, hook, rules in wanted
    ]


def _exit(networks: Iterable[Network], ruleset: Ruleset) -> Iterator[str]:
    for each in networks:
        if not each.internal:
            yield from way_out(ruleset, each)


def _closed(ruleset: Ruleset, version: int) -> Iterator[str]:
    """What stays on one bridge comes here as well, where the kernel is told so."""
    for each, names in ruleset.strange():
        if each == version:
            yield from (f"-i {name} -o {name} -j ACCEPT" for name in names)
            yield "-j DROP"


def _guard(networks: Iterable[Network]) -> Iterator[str]:
    for each in networks:
        yield f"-i {each.bridge} -d 127.0.0.0/8 -j DROP"


def _to_names(networks: Iterable[Network], ruleset: Ruleset, version: int) -> Iterator[str]:
    """Port 53 of a gateway is another one for its containers: the host's own stays free."""
    for each in networks:
        for subnet in (s for s in each.subnets if s.version == version):
            asked = f"-i {each.bridge} -d {subnet.gateway}"
            for protocol, port in ruleset.names_of(subnet):
                yield f"{asked} -p {protocol} --dport 53 -j REDIRECT --to-ports {port}"


def _by_address(ruleset: Ruleset) -> list[Published]:
    """Those of one address of the host before those of all."""
    return sorted(ruleset.published, key=lambda each: not each.port.host_address)


def _dnat(each: Published, version: int) -> Iterator[str]:
    """One rule for a port, and for a range whose numbers stay; iptables shifts no others."""
    port = each.port
    at = f" -d {port.host_address}" if port.host_address else ""
    for address in each.addresses_of(version)[:1]:
        if port.count > 1 and port.host_port == port.container_port:
            last = port.host_port + port.count - 1
            yield f"-p {port.protocol}{at} --dport {port.host_port}:{last} -j DNAT --to {address}"
            continue
        shown = f"[{address}]" if version == 6 else address
        for step in range(port.count):
            to = f"{shown}:{port.container_port + step}"
            yield f"-p {port.protocol}{at} --dport {port.host_port + step} -j DNAT --to {to}"


def _masquerade(network: Network, version: int) -> Iterator[str]:
    """Who goes out does so as the host; and so does who comes back in by a published port."""
    bridge = network.bridge
    for subnet in (s for s in network.subnets if s.version == version):
        if not network.internal:
            yield f"-s {subnet.subnet} ! -o {bridge} -j MASQUERADE"
        yield f"-s {subnet.subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"
    if version == 4:
        yield f"-s 127.0.0.0/8 -o {bridge} -j MASQUERADE"


def _forward(networks: Sequence[Network]) -> Iterator[str]:
    bridges = [each.bridge for each in networks]
    for each in bridges:
        for way in ("-i", "-o"):
            yield f"{way} {each} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    for each in bridges:
        yield f"-i {each} -o {each} -j ACCEPT"
    for network in networks:
        if network.internal:
            yield f"-i {network.bridge} -j DROP"
    for each in bridges:
        yield f"-o {each} -m conntrack --ctstate DNAT -j ACCEPT"
    for each in bridges:
        yield f"-o {each} -j DROP"
