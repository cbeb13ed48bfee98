"""Containers in networks: connected before they run, let go of when they have ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress

from orlop.errors import FailedPrecondition, InvalidArgument, NotFound, OrlopError
from orlop.events import Publisher
from orlop.network.cables import Cables
from orlop.network.cni_networks import CniNetworks
from orlop.network.cni_records import NO_RESOLVER, Resolver, is_cni
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Network, Port, Wish
from orlop.network.networks import Networks
from orlop.network.operations import SetLink
from orlop.network.ports import HostPorts
from orlop.network.processes import BEING_MADE, NOBODY, Pids, Process
from orlop.network.store import GUEST, matching
from orlop.rpc.context import validate_identifier
from orlop.turns import Turns
from orlop.wire.services.network_pb2 import NetworkDetach

_log = logging.getLogger(__name__)
PidOf = Callable[[str, str], int]
"""From a namespace and a container to its process, 0 if it does not run."""


class Connections:
    """Which containers are in which networks, in the records and in the kernel. Thread-safe.

    What a crash leaves half-done, `resuming` undoes or finishes. `moved` is called when a container
    that goes on may be in other networks than before.
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
        self.cables = Cables(networks, kernel, publisher)
        self.pids = Pids()
        self._networks = networks
        self._store = networks.store
        self._kernel = kernel
        self._ports = ports
        self._publisher = publisher
        self.moved: Callable[[str, str], None] = lambda namespace, container: None
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
        try:
            for wish in wishes:
                if is_cni(wish.network):  # what plugins are missing, or cannot, is told at once
                    self.cni.status(wish.network)
            with self._turns.take((namespace, container)):
                self.pids.put((namespace, container), BEING_MADE)  # no late exit of that one counts
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
        if not first.publishes:
            kind = "an internal" if first.internal else f"{first.driver}: such a"
            raise InvalidArgument(f"{kind} network publishes no ports")
        key = (namespace, container)
        held = self._ports.hold(key, ports, found[0].versions, loopback=True)
        self._store.publish(namespace, container, held)

    def connect(self, namespace: str, container: str, pid: int) -> None:
        """Plug the places of a container into the network namespace of process `pid`."""
        with Process(pid) as process:
            with self._turns.take((namespace, container)):
                self.pids.put((namespace, container), pid)
                for each in self._store.endpoints(namespace, container):
                    self.cables.plug(each, process.netns)
                self._update_names(namespace, container)
            self._ensure_rules(namespace, container)
            self.cni.connect(namespace, container, process)
            if process.has_ended():  # which was heard too early, if at all
                self.ended(namespace, container, pid)

    def turn(self, namespace: str, container: str) -> AbstractContextManager[None]:
        """Nobody else connects the container, or lets go of it, meanwhile."""
        return self._turns.take((namespace, container))

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

    def attach(self, namespace: str, container: str, wish: Wish, pid: int) -> Endpoint:
        """Put a container that runs, as process `pid`, into one more network."""
        validate_identifier("container", container)
        try:
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
        finally:
            self.moved(namespace, container)
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
        self.pids.meet((namespace, container), process.pid)
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
        self.pids.meet((namespace, container), NOBODY)  # it is known to be there
        network = self._networks.get(namespace, wish.network)
        if container.startswith(GUEST) and not network.is_bridge:
            # It is known to be there by its cable, of which the host has no end.
            raise InvalidArgument(f'network "{network.name}" is one of {network.driver}')
        taken = self._networks.taken(network)
        endpoint = self._store.reserve(network, container, wish, position, interface, taken)
        try:
            if ports:
                self._publish(namespace, container, [endpoint], ports)
            self.cables.plug(endpoint, ns)
            self._update_names(namespace, container)
            self._ensure_rules(namespace, container)
        except BaseException:
            with suppress(OrlopError):  # whatever there is of it
                self.cables.unplug(endpoint, ns)
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
        validate_identifier("container", container)  # "" would be all of them
        try:
            if is_cni(name):
                self._leave_cni(namespace, container, name)
            else:
                self._leave(namespace, container, self.named(namespace, name))
        finally:
            self.moved(namespace, container)

    def _leave_cni(self, namespace: str, container: str, name: str) -> None:
        if not self.cni.endpoints(namespace, container, name):
            raise NotFound(f'container "{container}" in network "{name}"')
        self.cni.detach(namespace, container, name)
        self._close_ports(namespace, container)

    def _leave(self, namespace: str, container: str, network: Network) -> None:
        with self._turns.take((namespace, container)):
            pid = self.pids.get((namespace, container), NOBODY)
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
            if self.pids.get((namespace, container), pid) == pid:
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
        self.pids.drop(key)
        self._ports.release(key)
        self._let_go(namespace, container)

    def renamed(self, namespace: str, container: str) -> set[str]:
        """A container's record has changed, and maybe its name; the networks that it is in."""
        found = self._store.endpoints(namespace, container)
        if found:
            self._update_names(namespace, container)
        found += self.cni.endpoints(namespace, container)
        return {each.network for each in found}

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
        found = self._store.endpoints(namespace, container, network) if container else []
        if not found:
            return False
        published = self._store.ports_of(namespace, container)
        for each in found:
            self.cables.unplug(each, ns)
        self._store.release(namespace, container, network)
        self._update_names(namespace, container)
        self._close_ports(namespace, container)
        if published:
            self._networks.lead(published)
        for each in found:
            event = NetworkDetach(network_id=each.network, container_id=each.container)
            self._publisher.publish(each.namespace, "/network/detach", event)
        self.cables.keep_worker()
        return True

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

    def wanted(self, namespace: str, name: str) -> Network:
        """The same of one that somebody is to be in: the default one is made when it is needed."""
        return self.named(namespace, name) if is_cni(name) else self._networks.get(namespace, name)

    def networks(self, namespace: str, wanted: Iterable[str] = ()) -> list[Network]:
        """Those that any of the filters match, CNI's as well, by name."""
        wanted = list(wanted)
        found = self._store.of_namespace(namespace, wanted)
        found += matching(self.cni.networks(namespace), wanted)
        return sorted(found, key=lambda each: each.name)
