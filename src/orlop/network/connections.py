"""Containers in networks: connected before they run, let go of when they have ended."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

from orlop.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError, Unimplemented
from orlop.events import Publisher
from orlop.network import bridge, uplink
from orlop.network.cni_networks import CniNetworks
from orlop.network.cni_records import NO_RESOLVER, Resolver, is_cni
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Network, Port, Wish
from orlop.network.namespaces import of_process
from orlop.network.networks import Networks
from orlop.network.operations import AnyOperation, DeleteLink, SetLink
from orlop.network.ports import HostPorts, Key
from orlop.network.processes import Process
from orlop.network.store import GUEST, matching
from orlop.turns import Turns
from orlop.wire.services.network_pb2 import NetworkAttach, NetworkDetach

_log = logging.getLogger(__name__)

_NONE = -1  # the pid of who has none
_LINK = re.compile(r"veth[0-9a-f]{11}")
PidOf = Callable[[str, str], int]
"""From a namespace and a container to its process, 0 if it does not run."""


class Connections:
    """Which containers are in which networks, in the records and in the kernel. Thread-safe.

    What a crash leaves half-done, `forget_ended` and `resume` undo or finish.
    """

    def __init__(
        self,
        networks: Networks,
        kernel: Kernel,
        ports: HostPorts,
        publisher: Publisher,
        cni: CniNetworks,
    ) -> None:
        self.cni = cni
        self._networks = networks
        self._store = networks.store
        self._kernel = kernel
        self._ports = ports
        self._publisher = publisher
        self._lock = threading.Lock()
        self._pids: dict[Key, int] = {}
        # Not held over what plugins of CNI do: who hears of ends must not wait for those.
        self._turns = Turns()
        self._coming: set[tuple[str, str, int]] = set()  # positions that plugins are busy with

    # A container that starts

    def reserve(
        self,
        namespace: str,
        container: str,
        wishes: Sequence[Wish],
        ports: Sequence[Port],
        resolver: Resolver = NO_RESOLVER,
    ) -> list[Endpoint]:
        """Places, addresses and ports for a container that is to run; all or none.

        Plugins of CNI that want to know are told the `resolver` that it is to have. Raises NotFound
        for a network that is not there, and what is wrong with a wish.
        """
        self.release(namespace, container)  # what an earlier task may have left
        with self._lock:
            self._pids[namespace, container] = 0  # no late exit of that one is meant
        try:
            with self._turns.take((namespace, container)):
                found = self._reserve(namespace, container, wishes, resolver)
                if ports:
                    self._publish(namespace, container, found, ports)
        except BaseException:
            self.release(namespace, container)
            raise
        self._kernel.keep = True
        return found

    def _reserve(
        self, namespace: str, container: str, wishes: Sequence[Wish], resolver: Resolver
    ) -> list[Endpoint]:
        found: list[Endpoint] = []
        for position, wish in enumerate(wishes):
            if is_cni(wish.network):
                found.append(self.cni.reserve(namespace, container, wish, position, resolver))
                continue
            network = self._networks.get(namespace, wish.network)
            taken = self._networks.taken(network)
            found.append(self._store.reserve(network, container, wish, position, taken=taken))
        return found

    def _publish(
        self, namespace: str, container: str, found: Sequence[Endpoint], ports: Sequence[Port]
    ) -> None:
        if not found:
            raise InvalidArgument("ports can be published of containers in a network only")
        if is_cni(found[0].network):
            self.cni.check_publishes(found[0].network)
            held = self._ports.hold((namespace, container), ports, (4,))
            self.cni.publish(namespace, container, held)
            return
        first = self._networks.get(namespace, found[0].network)
        if first.internal or not first.is_bridge:
            kind = "an internal" if first.internal else f"{first.driver}: such a"
            raise InvalidArgument(f"{kind} network publishes no ports")
        key = (namespace, container)
        held = self._ports.hold(key, ports, _versions(found[0]), loopback=True)
        self._store.publish(namespace, container, held)

    def connect(self, namespace: str, container: str, pid: int) -> None:
        """Plug the places of a container into the network namespace of process `pid`."""
        with Process(pid) as process:
            with self._turns.take((namespace, container)):
                with self._lock:
                    self._pids[namespace, container] = pid
                for each in self._store.endpoints(namespace, container):
                    self._plug(each, process.netns)
                self._update_names(namespace, container)
            self._ensure_rules(namespace, container)
            self.cni.connect(namespace, container, process)
            if process.has_ended():  # which was heard too early, if at all
                self.ended(namespace, container, pid)

    def _ensure_rules(self, namespace: str, container: str) -> None:
        """Have the ruleset be there, and lead the ports of a container to where it is now."""
        if ports := self._store.ports_of(namespace, container):
            self._networks.lead(ports)
        else:
            self._networks.mend()

    def wake_loopback(self, pid: int) -> None:
        """Set up lo in a namespace in which nobody else does."""
        with Process(pid) as process:
            self._kernel.apply(SetLink(ns=process.netns, name="lo", up=True))

    def _plug(self, endpoint: Endpoint, ns: str) -> None:
        network = self._networks.get(endpoint.namespace, endpoint.network)
        mtu = self._networks.ensure(network)
        try:
            self._kernel.apply(*_plugging(network, endpoint, ns, mtu))
        except Unimplemented:
            raise
        except OrlopError:
            # What an earlier attempt left may be in the way, or the bridge be gone.
            self._networks.forget(network)
            mtu = self._networks.ensure(network)
            self._kernel.apply(*_unplugging(network, endpoint, ns))
            self._kernel.apply(*_plugging(network, endpoint, ns, mtu))
        event = NetworkAttach(
            network_id=network.id, container_id=endpoint.container, addresses=endpoint.addresses
        )
        self._publisher.publish(endpoint.namespace, "/network/attach", event)

    def attach(self, namespace: str, container: str, wish: Wish, pid: int) -> Endpoint:
        """Put a container that runs, as process `pid`, into one more network."""
        with Process(pid) as process:
            if is_cni(wish.network):
                made = self._attach_cni(namespace, container, wish, process)
            else:
                with self._turns.take((namespace, container)):
                    position = self._begin(namespace, container, process)
                    made = self._enter(namespace, container, wish, process.netns, position)
            if process.has_ended():  # which was heard too early, if at all
                self.ended(namespace, container, pid)
                process.check()
        return made

    def _attach_cni(self, namespace: str, container: str, wish: Wish, process: Process) -> Endpoint:
        with self._turns.take((namespace, container)):
            position = self._begin(namespace, container, process)
            coming = (namespace, container, position)
            self._coming.add(coming)
        try:
            return self.cni.attach(namespace, container, wish, position, process)
        finally:
            self._coming.discard(coming)

    def _begin(self, namespace: str, container: str, process: Process) -> int:
        """In its turn: a process has another interface; at which position."""
        process.check()
        with self._lock:
            self._pids.setdefault((namespace, container), process.pid)
        return self._free_position(namespace, container)

    def enter(
        self,
        namespace: str,
        container: str,
        wish: Wish,
        ns: str,
        position: int,
        interface: str = "",
        ports: Sequence[Port] = (),
    ) -> Endpoint:
        """Put the network namespace at the path `ns` into a network."""
        with self._turns.take((namespace, container)):
            return self._enter(namespace, container, wish, ns, position, interface, ports)

    def _enter(
        self,
        namespace: str,
        container: str,
        wish: Wish,
        ns: str,
        position: int,
        interface: str = "",
        ports: Sequence[Port] = (),
    ) -> Endpoint:
        with self._lock:
            self._pids.setdefault((namespace, container), _NONE)  # it is known to be there
        network = self._networks.get(namespace, wish.network)
        if container.startswith(GUEST) and not network.is_bridge:
            # It is known to be there by its cable, of which the host has no end.
            raise InvalidArgument(f'network "{network.name}" is one of {network.driver}')
        taken = self._networks.taken(network)
        endpoint = self._store.reserve(network, container, wish, position, interface, taken)
        try:
            if ports:
                self._publish(namespace, container, [endpoint], ports)
            self._plug(endpoint, ns)
            self._update_names(namespace, container)
            self._ensure_rules(namespace, container)
        except BaseException:
            with suppress(OrlopError):  # whatever there is of it
                self._kernel.apply(*_unplugging(network, endpoint, ns))
            self._store.release(namespace, container, network.id)
            self._update_names(namespace, container)
            self._close_ports(namespace, container)
            raise
        self._kernel.keep = True
        return endpoint

    def _free_position(self, namespace: str, container: str) -> int:
        key = (namespace, container)
        used = {position for *who, position in self._coming.copy() if tuple(who) == key}
        used |= {each.position for each in self.endpoints(*key)}
        return next(n for n in range(len(used) + 1) if n not in used)

    # A container that ends

    def detach(self, namespace: str, container: str, name: str) -> None:
        """Take a container out of a network; NotFound if it is not in there.

        Raises what a plugin of CNI refuses: it is in there then.
        """
        if is_cni(name):
            if not self.cni.endpoints(namespace, container, name):
                raise NotFound(f'container "{container}" in network "{name}"')
            self.cni.detach(namespace, container, name)
            self._close_ports(namespace, container)
            return
        network = self._networks.get(namespace, name)
        with self._turns.take((namespace, container)):
            with self._lock:
                pid = self._pids.get((namespace, container), 0)
            with ExitStack() as held:
                ns = ""
                with suppress(FailedPrecondition):  # it has ended: what was in there is gone
                    if pid > 0:
                        process = held.enter_context(Process(pid))
                        process.check()
                        ns = process.netns
                if not self._let_go(namespace, container, network.id, ns):
                    raise NotFound(f'container "{container}" in network "{network.name}"')

    def _close_ports(self, namespace: str, container: str) -> None:
        """Let go of the ports of who publishes none any more."""
        if not self.ports_of(namespace, container):
            self._ports.release((namespace, container))

    def ended(self, namespace: str, container: str, pid: int) -> None:
        """The task of a container has ended, if `pid` is still its own: it leaves all networks."""
        with self._turns.take((namespace, container)):
            with self._lock:
                current = self._pids.get((namespace, container), pid)
            if current == pid:
                self.cni.release_soon(namespace, container)
                self._release(namespace, container)

    def release(self, namespace: str, container: str) -> None:
        """A container leaves all networks, and its ports are closed; fine if it has none."""
        with self._turns.take((namespace, container)):
            self._release(namespace, container)
        self.cni.release(namespace, container)

    def _release(self, namespace: str, container: str) -> None:
        """The same, but for CNI."""
        key = (namespace, container)
        with self._lock:
            self._pids.pop(key, None)
        self._ports.release(key)
        self._let_go(namespace, container)

    def renamed(self, namespace: str, container: str) -> None:
        """A container's record has changed, and maybe its name."""
        if self._store.endpoints(namespace, container):
            self._update_names(namespace, container)

    def _update_names(self, namespace: str, container: str) -> None:
        """Names are a service to containers: what is wrong with it keeps none from running."""
        try:
            self._networks.names.update(namespace, container)
        except OrlopError as error:
            _log.warning("namespace=%s container=%s names: %s", namespace, container, error)

    def _let_go(self, namespace: str, container: str, network: str = "", ns: str = "") -> bool:
        """Take a container out of a network, or all but CNI's; whether it was in there.

        Cables first: a network that nobody is in any more may be removed at once. What has no end
        on the host goes with the container's namespace, or out of that at the path `ns`.
        """
        found = self._store.endpoints(namespace, container, network)
        if not found:
            return False
        published = self._store.ports_of(namespace, container)
        for each in found:
            where = self._networks.get(namespace, each.network)
            self._kernel.apply(*_unplugging(where, each, ns))
        self._store.release(namespace, container, network)
        self._update_names(namespace, container)
        self._close_ports(namespace, container)
        if published:
            self._networks.lead(published)
        for each in found:
            event = NetworkDetach(network_id=each.network, container_id=each.container)
            self._publisher.publish(each.namespace, "/network/detach", event)
        self._keep_worker()
        return True

    def _keep_worker(self) -> None:
        """Have the network worker at hand as long as somebody is in a network."""
        before, self._kernel.keep = self._kernel.keep, self._store.occupied()
        if before and not self._kernel.keep:
            with suppress(OrlopError):
                self._kernel.links()  # by which it hears that it may go

    # After a restart

    def forget_ended(self, pid_of: PidOf) -> None:
        """Release in the records whoever does not run; `pid_of` finds its process.

        Quick, and to be done before clients are served: the kernel's part is `resume`.
        """
        for key in {(each.namespace, each.container) for each in self._store.endpoints()}:
            if key[1].startswith(GUEST):
                continue
            with self._lock:
                being_made = self._pids.get(key) == 0
            if not being_made and not pid_of(*key):
                self._store.release(*key)
                self._ports.release(key)
                with self._lock:
                    self._pids.pop(key, None)

    def resume(self, pid_of: PidOf) -> None:
        """Make the kernel what the records say, for containers that an earlier daemon connected."""
        self._resume_cni(pid_of)
        if self._store.all():
            self._resume_bridges(pid_of)
        try:
            self._networks.names.resume()
        except OrlopError as error:
            _log.warning("names of containers are not answered: %s", error)
        if self._store.all():
            self._networks.refresh()

    def _resume_bridges(self, pid_of: PidOf) -> None:
        for key in sorted({(each.namespace, each.container) for each in self._store.endpoints()}):
            try:
                if key[1].startswith(GUEST):
                    self._resume_guest(key)
                else:
                    self._resume(key, pid_of(*key))
            except OrlopError as error:
                _log.warning("namespace=%s container=%s network: %s", *key, error)
        self._pull_strays()
        self._keep_worker()

    def _resume(self, key: Key, pid: int) -> None:
        with self._lock:
            if key in self._pids or not pid:  # it is known: a client has started it since
                return
            self._pids[key] = pid
        mine = self._store.endpoints(*key)
        if ports := self._store.ports_of(*key):
            self._hold_again(key, ports, _versions(mine[0]), loopback=True)
        inside = {each.name: each for each in self._kernel.links(of_process(pid))}
        here = {each.name: each for each in self._kernel.links()}
        for each in mine:
            network = self._networks.get(each.namespace, each.network)
            self._networks.ensure(network)
            ours, theirs = here.get(each.link), inside.get(each.inside)
            whole = theirs is not None and theirs.up
            if network.is_bridge:
                whole = whole and ours is not None and ours.master == network.bridge
            if not whole:
                self._kernel.apply(*_unplugging(network, each, of_process(pid)))
                self._plug(each, of_process(pid))

    def _resume_guest(self, key: Key) -> None:
        """Who comes with a namespace of its own is there as long as its cable is."""
        here = {each.name for each in self._kernel.links()}
        with self._lock:
            if key in self._pids:
                return
            self._pids[key] = _NONE
        mine = self._store.endpoints(*key)
        if not all(each.link in here for each in mine):
            self.release(*key)
        elif ports := self._store.ports_of(*key):
            self._hold_again(key, ports, _versions(mine[0]), loopback=True)

    def _resume_cni(self, pid_of: PidOf) -> None:
        def lives(key: Key) -> bool:
            with self._lock:
                being_made = self._pids.get(key) == 0
            return being_made or bool(pid_of(*key))

        for key in {(each.namespace, each.container) for each in self.cni.endpoints()}:
            ports = self.cni.ports(*key)
            if ports and not self._ports.holds(key) and lives(key):
                self._hold_again(key, ports, (4,))
        self.cni.resume(lives)

    def _hold_again(
        self, key: Key, ports: Sequence[Port], versions: Sequence[int], *, loopback: bool = False
    ) -> None:
        try:
            self._ports.hold(key, ports, versions, loopback=loopback)
        except FailedPrecondition as error:  # somebody was faster; the ruleset wins
            _log.warning("namespace=%s container=%s: %s", *key, error)

    def _pull_strays(self) -> None:
        """Cables on our bridges, and unmoved ends of others, that no record knows: of a crash."""
        found = self._kernel.links()  # before the records, which come before the cables
        bridges = {each.bridge for each in self._store.all() if each.is_bridge}
        drivers = {each.driver for each in self._store.all() if not each.is_bridge}
        known = {each.link for each in self._store.endpoints()}
        for each in found:
            is_cable = each.master in bridges and each.kind == "veth"
            is_unmoved = each.kind in drivers and _LINK.fullmatch(each.name) is not None
            if each.name not in known and (is_cable or is_unmoved):
                self._kernel.apply(DeleteLink(name=each.name, missing_ok=True))

    # What is there

    def endpoints(
        self, namespace: str = "", container: str = "", network: str = ""
    ) -> list[Endpoint]:
        """The places of a container, of all in a network (its id), or all that there are."""
        found = self._store.endpoints(namespace, container, network)
        found += self.cni.endpoints(namespace, container, network)
        return sorted(found, key=lambda each: (each.namespace, each.container, each.position))

    def ports_of(self, namespace: str, container: str) -> list[Port]:
        """The ports that lead to a container."""
        found = self._store.ports_of(namespace, container)
        return found + self.cni.ports(namespace, container)

    def network_of(self, endpoint: Endpoint) -> Network:
        return self.named(endpoint.namespace, endpoint.network)

    def named(self, namespace: str, name: str) -> Network:
        """A network that is there, by name or id, also one of CNI; raises NotFound."""
        found = self.cni if is_cni(name) else self._store
        return found.get(namespace, name)

    def networks(self, namespace: str, wanted: Iterable[str] = ()) -> list[Network]:
        """Those that any of the filters match, CNI's as well, by name."""
        wanted = list(wanted)
        found = self._store.of_namespace(namespace, wanted)
        found += matching(self.cni.networks(namespace), wanted)
        return sorted(found, key=lambda each: each.name)


def _versions(endpoint: Endpoint) -> list[int]:
    """By which versions of IP a published port leads to a container."""
    return [each for each in (4, 6) if endpoint.address(each)]


def _plugging(network: Network, endpoint: Endpoint, ns: str, mtu: int) -> Iterator[AnyOperation]:
    if network.is_bridge:
        yield from bridge.plug(network, endpoint, ns, mtu)
    else:
        yield from uplink.plug(network, endpoint, ns)


def _unplugging(network: Network, endpoint: Endpoint, ns: str) -> Iterator[AnyOperation]:
    yield from bridge.unplug(endpoint) if network.is_bridge else uplink.unplug(endpoint, ns)
