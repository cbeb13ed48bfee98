"""Hears when tasks end, and has their containers leave their networks; and who comes and goes.

Now and then it looks whether others have flushed our rules of the packet filter.
"""

from __future__ import annotations

from orlop.events import Exchange, Listener, decoded
from orlop.network.connections import Connections, PidOf
from orlop.network.hosts_files import HostsFiles
from orlop.network.named import NamedNamespaces
from orlop.network.networks import Networks
from orlop.network.own_files import OwnFiles
from orlop.network.resuming import Resuming
from orlop.wire.events_pb2 import ContainerUpdate, NamespaceDelete, TaskExit
from orlop.wire.services.network_pb2 import NetworkAttach, NetworkDetach
from orlop.wire.types_pb2 import Envelope

_ENDED, _GONE, _CHANGED = "/tasks/exit", "/namespaces/delete", "/containers/update"
_MOVES: dict[str, type[NetworkAttach | NetworkDetach]] = {
    "/network/attach": NetworkAttach,
    "/network/detach": NetworkDetach,
}
_ROUND = 10.0  # seconds


class NetworkWatch:
    """Its thread goes from `start` to `close`; events are heard from the moment it is made."""

    def __init__(
        self,
        exchange: Exchange,
        networks: Networks,
        connections: Connections,
        resuming: Resuming,
        own: OwnFiles,
        hosts: HostsFiles,
        named: NamedNamespaces,
        pid_of: PidOf,
    ) -> None:
        self._networks = networks
        self._connections = connections
        self._resuming = resuming
        self._own = own
        self._hosts = hosts
        self._named = named
        self._pid_of = pid_of
        self._listener = Listener(
            exchange,
            "network",
            (_ENDED, _GONE, _CHANGED, *_MOVES),
            self._heard,
            self._look_around,
            rounds=networks.mend,
            interval=_ROUND,
        )

    def start(self) -> None:
        """Call before clients are served: what does not run then is not just being made."""
        self._resuming.forget_ended(self._pid_of)
        self._listener.start(self._resume)

    def close(self) -> None:
        self._listener.close()

    def _look_around(self) -> None:
        self._resuming.forget_ended(self._pid_of)
        self._resume()

    def _resume(self) -> None:
        self._resuming.resume(self._pid_of)
        self._own.follow_all()
        self._hosts.refresh_all()
        self._networks.leave_gone()
        self._named.leave_gone()

    def _heard(self, envelope: Envelope) -> None:
        namespace, topic = envelope.namespace, envelope.topic
        if topic == _ENDED:
            ended = decoded(envelope, TaskExit)
            if ended and ended.id == ended.container_id:
                self._connections.ended(namespace, ended.id, ended.pid)
        elif topic == _GONE:
            if gone := decoded(envelope, NamespaceDelete):
                self._networks.leave_namespace(gone.name)
                self._named.leave_namespace(gone.name)
        elif topic == _CHANGED:
            if changed := decoded(envelope, ContainerUpdate):
                for network in self._connections.renamed(namespace, changed.id):
                    self._hosts.refresh(namespace, network)
        elif moved := decoded(envelope, _MOVES[topic]):
            self._hosts.refresh(namespace, moved.network_id, moved.container_id)
