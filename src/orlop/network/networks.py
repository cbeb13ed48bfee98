"""Networks as they are: records, bridges of the host, and the ruleset over all of them."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError
from orlop.events import Publisher
from orlop.metadata import fieldmask
from orlop.metadata.references import namespace_is_gone
from orlop.metadata.sweeping import Dead, Key
from orlop.network import bridge, uplink
from orlop.network.cni_records import is_cni
from orlop.network.dns.director import NameServer
from orlop.network.firewall import Firewall, Published, Ruleset, no_dockers
from orlop.network.forwarding import Forwarding
from orlop.network.kernel import Kernel
from orlop.network.model import Link, Network, Port, Subnet
from orlop.network.operations import place
from orlop.network.store import NetworkStore
from orlop.wire.services.network_pb2 import NetworkCreate, NetworkDelete, NetworkUpdate

DEFAULT = "bridge"
_log = logging.getLogger(__name__)
_MTU = 1500


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network as a user asks for it."""

    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    mtu: int = 0
    bridge: str = ""
    mode: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Networks:
    """The networks of all namespaces. Usable from any thread.

    `owner` is noted on every bridge, so that two daemons do not take each other's.
    """

    def __init__(
        self,
        store: NetworkStore,
        kernel: Kernel,
        publisher: Publisher,
        names: NameServer,
        firewall: Firewall,
        forwarding: Forwarding,
        owner: str,
    ) -> None:
        self.store = store
        self.names = names
        names.moved = self.refresh
        self._kernel = kernel
        self._publisher = publisher
        self._firewall = firewall
        self._forwarding = forwarding
        self._owner = owner
        self._lock = threading.Lock()
        self._rules_lock = threading.Lock()
        self._tickets = itertools.count(1)
        self._served = 0  # the last ticket that had been drawn when the ruleset was last made
        self._seen = 0  # the same, when it was last seen to be there
        self._leaving: set[str] = set()  # networks whose records are about to go
        self._mtus: dict[str, int] = {}  # of those whose bridge is there

    def create(self, namespace: str, wanted: Wanted, *, lease: str = "") -> Network:
        """Add a network; its bridge is made when the first container comes.

        One that is made for a lease goes when nothing keeps it. Raises what `NetworkStore.create`
        raises.
        """
        record = Network(
            id="",
            namespace=namespace,
            name=wanted.name,
            driver=wanted.driver,
            bridge=wanted.bridge,
            mode=wanted.mode,
            internal=wanted.internal,
            mtu=wanted.mtu,
            subnets=wanted.subnets,
            labels=wanted.labels,
        )
        if record.is_bridge:
            self._check_free(wanted.bridge)
        made = self.store.create(
            record, *self._host_prefixes(), ipv4=wanted.ipv4, ipv6=wanted.ipv6, lease=lease
        )
        self._publisher.publish(
            namespace, "/network/create", NetworkCreate(id=made.id, name=made.name)
        )
        return made

    def update(
        self, namespace: str, name: str, changed: Mapping[str, str], mask: FieldMask
    ) -> Network:
        """Change the labels of a network, those that the mask names."""
        named = fieldmask.paths(mask, fields=("labels",), maps=("labels",))
        made = self.store.update(namespace, name, changed, named)
        event = NetworkUpdate(id=made.id, name=made.name, labels=made.labels)
        self._publisher.publish(namespace, "/network/update", event)
        return made

    def _host_prefixes(self) -> tuple[list[str], list[str]]:
        """Where the host is itself, and where it knows a router to, as into a company's network.

        A subnet must be nowhere of the first; often the second are all that there are.
        """
        mine = {each.bridge for each in self.store.all() if each.is_bridge}
        here: list[str] = []
        far: list[str] = []
        for each in self._kernel.routes():
            if each.link not in mine:
                (here if each.link and not each.gateway else far).append(each.destination)
        return here, far

    def get(self, namespace: str, name: str) -> Network:
        """A network by name or id; the default one is made when it is first asked for."""
        try:
            return self.store.get(namespace, name)
        except NotFound:
            if name != DEFAULT:
                raise
        try:
            return self.create(namespace, Wanted(DEFAULT))
        except AlreadyExists:
            return self.store.get(namespace, name)

    def remove(self, namespace: str, name: str, dead: Dead | None = None) -> Network:
        """Remove a network and its bridge; FailedPrecondition while it is used, or is not `dead`.

        The record goes last, so that nothing is left that no record knows.
        """
        if is_cni(name):
            raise FailedPrecondition(f'network "{name}" is there as long as its configuration file')
        with self._lock:
            gone = self.store.get(namespace, name)
            self.store.check_unused(gone, dead)
            self._mtus.pop(gone.id, None)
            self._unmake(gone)
            self._leaving.add(gone.id)
            try:
                self.refresh()
                self.store.delete(namespace, gone.id, dead)
            except BaseException:  # a container has come meanwhile
                self._leaving.discard(gone.id)
                self.refresh()
                raise
            self._leaving.discard(gone.id)
        self.names.leave(gone)
        self._publisher.publish(
            namespace, "/network/delete", NetworkDelete(id=gone.id, name=gone.name)
        )
        return gone

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Remove the networks that were made for a lease and that nothing keeps; how many."""
        removed = 0
        for namespace, name in keys:
            try:
                self.remove(namespace, name, dead)
                removed += 1
            except (FailedPrecondition, NotFound):  # somebody uses it, or was faster
                pass
        return removed

    def prune(
        self, namespace: str, wanted: Iterable[str] = (), dead: Dead | None = None
    ) -> list[Network]:
        """Remove all that nobody uses, any of the filters match, and that are `dead` if given."""
        found = []
        for each in self.store.of_namespace(namespace, wanted):
            with suppress(FailedPrecondition, NotFound):
                found.append(self.remove(namespace, each.id, dead))
        return found

    def ensure(self, network: Network) -> int:
        """Make the network's bridge if it is not there; its MTU."""
        with self._lock:
            if network.id in self._mtus:
                return self._mtus[network.id]
            if network.is_bridge:
                mtu = network.mtu or self._default_mtu()
                self._check_owner(network)
                versions = [each.version for each in network.subnets]
                self._forwarding.open(versions, self.refresh)
                self._kernel.apply(*bridge.make(network, mtu, self._owner))
            else:
                mtu = network.mtu
                self._ensure_parent(network)
            self._mtus[network.id] = mtu
        if network.is_bridge:
            self.refresh()
        return mtu

    def _ensure_parent(self, network: Network) -> None:
        if any(each.name == network.bridge for each in self._kernel.links()):
            return
        making = list(uplink.make(network, self._owner))
        if not making:
            raise NotFound(f'interface "{network.bridge}", which network "{network.name}" is on')
        self._kernel.apply(*making)

    def _unmake(self, network: Network) -> None:
        """Remove the host's side of a network, but for what is not our own."""
        links = self._kernel.links()
        if any(each.name == network.bridge and self._is_ours(each, network) for each in links):
            self._kernel.apply(*bridge.unmake(network))

    def taken(self, network: Network) -> list[str]:
        """The host's own addresses, which are among those of a network that the host is in."""
        if network.is_bridge:
            return []
        found = (text for each in self._kernel.links() for text in each.addresses)
        return [text.partition("/")[0] for text in found]

    def forget(self, network: Network) -> None:
        """Look for the network's bridge again when it is next needed."""
        with self._lock:
            self._mtus.pop(network.id, None)

    def _check_free(self, link: str) -> None:
        """A new network's bridge must not be an interface of somebody else's."""
        for each in self._kernel.links() if link else ():
            if each.name == link and each.alias != self._owner:
                raise FailedPrecondition(f'interface "{link}" in {place("")} is there already')

    def _check_owner(self, network: Network) -> None:
        for each in self._kernel.links():
            if each.name == network.bridge and not self._is_ours(each, network):
                raise FailedPrecondition(
                    f'interface "{each.name}" in {place("")} is not orlop\'s own'
                    f" ({each.alias or each.kind or 'hardware'}): set network.bridge to another"
                )

    def _is_ours(self, link: Link, network: Network) -> bool:
        """One that has no owner yet may be ours: it is made first, and then told."""
        return link.alias == self._owner or (not link.alias and link.mac == bridge.mac(network))

    def _default_mtu(self) -> int:
        """That of the way out of this host, which may be a tunnel."""
        ways = {each.link for each in self._kernel.routes() if each.destination == "0.0.0.0/0"}
        found = [each.mtu for each in self._kernel.links() if each.name in ways and each.mtu]
        return min(found, default=_MTU)

    def refresh(self) -> None:
        """Make the ruleset that of the records; without networks nothing is but what stays closed.

        Of many that come at once one does it for all who have come before it began.
        """
        ticket = next(self._tickets)
        with self._rules_lock:
            if ticket <= self._served:
                return
            newest = next(self._tickets)
            self._make_rules()
            self._served = newest

    def check_firewall(self) -> None:
        """Raise what keeps the packet filter from working."""
        with self._rules_lock:
            self._firewall.check()

    def lead(self, ports: Sequence[Port]) -> None:
        """Make the ruleset that of the records, of which these ports are new, or gone."""
        self.refresh()
        udp = {
            port
            for each in ports
            if each.protocol == "udp"
            for port in range(each.host_port, each.host_port + each.count)
        }
        if udp:
            try:
                self._kernel.forget_flows(udp)
            except OrlopError as error:  # those flows end by themselves, some time
                _log.warning("UDP flows to published ports go where they went: %s", error)

    def mend(self) -> None:
        """Make the ruleset again if somebody else has taken it away, as who flushes all does.

        Of many that come at once one looks for all, as in `refresh`.
        """
        if not self.store.occupied() and not self._forwarding.closed:
            return  # nobody is to be kept apart, nor kept out
        ticket = next(self._tickets)
        with self._rules_lock:
            if ticket <= max(self._served, self._seen):
                return
            newest = next(self._tickets)
            if self._firewall.mend():
                _log.warning("others have changed the packet filter: our rules are made again")
            self._seen = newest

    def _make_rules(self) -> None:
        leaving = self._leaving.copy()  # before the records, of which they go then
        networks = [e for e in self.store.all() if e.is_bridge and e.id not in leaving]
        closed = self._forwarding.closed
        if not networks and not closed:
            self._firewall.remove()
            return
        addresses = self._ports_lead_to()
        published = [
            Published(port, addresses.get(key, ()))
            for key, ports in self.store.ports().items()
            for port in ports
        ]
        bridges = no_dockers(name for _, name in socket.if_nameindex())
        self._firewall.make(Ruleset(networks, published, self.names.ports(), closed, bridges))

    def _ports_lead_to(
        self, namespace: str = "", container: str = ""
    ) -> dict[tuple[str, str], Sequence[str]]:
        """Addresses of a container's first place in a network that publishes; of one, or all."""
        found: dict[tuple[str, str], Sequence[str]] = {}
        publishing = {each.id for each in self.store.all() if each.publishes}
        for each in self.store.endpoints(namespace, container):
            if each.network in publishing:
                found.setdefault((each.namespace, each.container), each.addresses)
        return found

    def address_of(self, namespace: str, container: str) -> str:
        """Where the ports of a container lead to at the moment; "" if nowhere."""
        found = self._ports_lead_to(namespace, container)
        return next(iter(found.get((namespace, container), ())), "")

    def leave_namespace(self, namespace: str) -> None:
        """A namespace has gone, unless it is there again: so do networks that nobody uses."""
        try:
            self.prune(namespace, dead=namespace_is_gone)
        except OrlopError as error:
            _log.warning("namespace=%s networks stay: %s", namespace, error)

    def leave_gone(self) -> None:
        """Namespaces may have gone while nobody heard of it."""
        for namespace in sorted({each.namespace for each in self.store.all()}):
            self.leave_namespace(namespace)
