"""After a restart: the records and the kernel agree again on who is in which network."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from orlop.errors import FailedPrecondition, OrlopError
from orlop.network import bridge, uplink
from orlop.network.connections import Connections, PidOf
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Port
from orlop.network.namespaces import of_process
from orlop.network.networks import Networks
from orlop.network.operations import DeleteLink
from orlop.network.ports import HostPorts, Key
from orlop.network.processes import NOBODY
from orlop.network.store import GUEST

_OURS = re.compile(r"veth[0-9a-f]{11}")
"""What `store` calls the host's ends of cables, and interfaces that are to be moved."""
_log = logging.getLogger(__name__)


class Resuming:
    """Undoes or finishes what a crash has left half-done, and hears late who has ended."""

    def __init__(
        self, connections: Connections, networks: Networks, kernel: Kernel, ports: HostPorts
    ) -> None:
        self._connections = connections
        self._cables = connections.cables
        self._pids = connections.pids
        self._cni = connections.cni
        self._networks = networks
        self._store = networks.store
        self._kernel = kernel
        self._ports = ports
        self._left: set[Key] = set()  # by an earlier daemon, and not looked after yet

    def forget_ended(self, pid_of: PidOf) -> None:
        """Release in the records whoever does not run; `pid_of` finds its process.

        Quick, and to be done before clients are served: the kernel's part is `resume`.
        """
        for key in {(each.namespace, each.container) for each in self._store.endpoints()}:
            if key[1].startswith(GUEST):
                continue
            with self._connections.turn(*key):
                self._forget_ended(key, pid_of)

    def _forget_ended(self, key: Key, pid_of: PidOf) -> None:
        if self._pids.is_being_made(key):
            return
        if pid := pid_of(*key):
            if self._pids.meet(key, pid):  # which it may be disconnected by, before `resume`
                self._left.add(key)
            return
        self._store.release(*key)
        self._ports.release(key)
        self._pids.drop(key)

    def resume(self, pid_of: PidOf) -> None:
        """Make the kernel what the records say, for containers that an earlier daemon connected."""
        try:  # before there are other rules, which would not lead to who answers
            self._networks.names.resume()
        except OrlopError as error:
            _log.warning("names of containers are not answered: %s", error)
        self._resume_cni(pid_of)
        if self._store.all():
            self._resume_bridges(pid_of)
        self._networks.refresh()

    def _resume_bridges(self, pid_of: PidOf) -> None:
        for key in sorted({(each.namespace, each.container) for each in self._store.endpoints()}):
            try:
                if key[1].startswith(GUEST):
                    self._resume_guest(key)
                else:
                    with self._connections.turn(*key):
                        self._resume(key, pid_of(*key))
            except OrlopError as error:
                _log.warning("namespace=%s container=%s network: %s", *key, error)
        self._pull_strays()
        self._cables.keep_worker()

    def _resume(self, key: Key, pid: int) -> None:
        if key not in self._left:
            return
        if pid and self._pids.get(key, NOBODY) == pid:  # else it has ended, or was started again
            self._mend(key, pid)
        self._left.discard(key)

    def _mend(self, key: Key, pid: int) -> None:
        mine = self._store.endpoints(*key)
        if not mine:
            return
        if (ports := self._store.ports_of(*key)) and not self._ports.holds(key):
            self._hold_again(key, ports, self._versions(mine), loopback=True)
        inside, here = self._kernel.links(of_process(pid)), self._kernel.links()
        for each in mine:
            network = self._networks.get(each.namespace, each.network)
            self._networks.ensure(network)
            if network.is_bridge:
                whole = bridge.is_whole(network, each, here)
            else:
                whole = uplink.is_whole(network, each, inside)
            if not whole:
                self._cables.unplug(each, of_process(pid))
                self._cables.plug(each, of_process(pid))

    def _resume_guest(self, key: Key) -> None:
        """Who comes with a namespace of its own is there as long as its cable is."""
        here = {each.name for each in self._kernel.links()}
        if not self._pids.meet(key, NOBODY):
            return
        mine = self._store.endpoints(*key)
        if not all(each.link in here for each in mine):
            self._connections.release(*key)
        elif ports := self._store.ports_of(*key):
            self._hold_again(key, ports, self._versions(mine), loopback=True)

    def _versions(self, mine: Sequence[Endpoint]) -> Sequence[int]:
        """By which versions of IP ports lead to a container: to its first place that publishes."""
        publishing = {each.id for each in self._store.all() if each.publishes}
        return next((each.versions for each in mine if each.network in publishing), ())

    def _resume_cni(self, pid_of: PidOf) -> None:
        def lives(key: Key) -> bool:
            return self._pids.is_being_made(key) or bool(pid_of(*key))

        for key in {(each.namespace, each.container) for each in self._cni.endpoints()}:
            ports = self._cni.ports(*key)
            if ports and not self._ports.holds(key) and lives(key):
                self._hold_again(key, ports, (4,))
        self._cni.resume(lives)

    def _hold_again(
        self, key: Key, ports: Sequence[Port], versions: Sequence[int], *, loopback: bool = False
    ) -> None:
        try:
            self._ports.hold(key, ports, versions, loopback=loopback)
        except FailedPrecondition as error:  # somebody was faster; the ruleset wins
            _log.warning("namespace=%s container=%s: %s", *key, error)

    def _pull_strays(self) -> None:
        """Our cables on our bridges, and unmoved ends of others, that no record knows: of a crash.

        What others have put on a bridge of ours is theirs.
        """
        found = self._kernel.links()  # before the records, which come before the cables
        bridges = {each.bridge for each in self._store.all() if each.is_bridge}
        drivers = {each.driver for each in self._store.all() if not each.is_bridge}
        known = {each.link for each in self._store.endpoints()}
        for each in found:
            is_cable = each.master in bridges and each.kind == "veth"
            is_ours = _OURS.fullmatch(each.name) is not None and each.name not in known
            if is_ours and (is_cable or each.kind in drivers):
                self._kernel.apply(DeleteLink(name=each.name, missing_ok=True))
