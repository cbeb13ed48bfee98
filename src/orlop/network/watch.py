"""Hears when tasks end, and has their containers leave their networks; and who comes and goes.

Now and then it looks whether others have flushed our rules of the packet filter.
"""

from __future__ import annotations

import logging
import threading
import time

from orlop.errors import OrlopError, ResourceExhausted
from orlop.events import Exchange, decoded
from orlop.network.connections import Connections, PidOf
from orlop.network.hosts_files import HostsFiles
from orlop.network.named import NamedNamespaces
from orlop.network.networks import Networks
from orlop.wire.events_pb2 import ContainerUpdate, NamespaceDelete, TaskExit
from orlop.wire.services.network_pb2 import NetworkAttach, NetworkDetach
from orlop.wire.types_pb2 import Envelope

_FILTERS = [
    f'topic=="{topic}"'
    for topic in (
        "/tasks/exit",
        "/namespaces/delete",
        "/containers/update",
        "/network/attach",
        "/network/detach",
    )
]
_MOVES: dict[str, type[NetworkAttach | NetworkDetach]] = {
    "/network/attach": NetworkAttach,
    "/network/detach": NetworkDetach,
}
_ROUND = 10.0  # seconds
_log = logging.getLogger(__name__)


class NetworkWatch:
    """Its thread goes from `start` to `close`; events are heard from the moment it is made."""

    def __init__(
        self,
        exchange: Exchange,
        networks: Networks,
        connections: Connections,
        hosts: HostsFiles,
        named: NamedNamespaces,
        pid_of: PidOf,
    ) -> None:
        self._exchange = exchange
        self._networks = networks
        self._connections = connections
        self._hosts = hosts
        self._named = named
        self._pid_of = pid_of
        self._events = exchange.subscribe(_FILTERS)
        self._closing = False
        self._next_round = 0.0
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self) -> None:
        """Call before clients are served: what does not run then is not just being made."""
        self._connections.forget_ended(self._pid_of)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._events.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._resume()
        while not self._closing:
            try:
                for envelope in self._events.take(_ROUND) or ():
                    if self._closing:
                        return
                    self._heard(envelope)
                self._look()
            except ResourceExhausted:  # some were missed
                self._events = self._exchange.subscribe(_FILTERS)
                self._connections.forget_ended(self._pid_of)
                self._resume()

    def _resume(self) -> None:
        try:
            self._connections.resume(self._pid_of)
            self._hosts.refresh_all()
        except OrlopError as error:
            _log.warning("networks cannot be made what they were: %s", error)
        except Exception:  # noqa: BLE001 - what comes later must be heard
            _log.exception("networks cannot be made what they were")

    def _look(self) -> None:
        if time.monotonic() < self._next_round:
            return
        self._next_round = time.monotonic() + _ROUND
        complaint = ""
        try:
            self._networks.mend()
        except OrlopError as error:
            complaint = str(error)
            if complaint != self._complaint:  # not every round
                _log.warning("rules of the packet filter cannot be made again: %s", error)
        except Exception as error:  # noqa: BLE001 - what comes later must be heard
            complaint = repr(error)
            if complaint != self._complaint:
                _log.exception("rules of the packet filter cannot be made again")
        self._complaint = complaint

    def _heard(self, envelope: Envelope) -> None:
        try:
            if envelope.topic == "/namespaces/delete":
                gone = decoded(envelope, NamespaceDelete)
                if gone is not None:
                    self._networks.leave_namespace(gone.name)
                    self._named.leave_namespace(gone.name)
                return
            if envelope.topic == "/containers/update":
                changed = decoded(envelope, ContainerUpdate)
                if changed is not None:
                    self._connections.renamed(envelope.namespace, changed.id)
                    self._hosts.renamed(envelope.namespace, changed.id)
                return
            if envelope.topic in _MOVES:
                moved = decoded(envelope, _MOVES[envelope.topic])
                if moved is not None:
                    self._hosts.refresh(envelope.namespace, moved.network_id, moved.container_id)
                return
            event = decoded(envelope, TaskExit)
            if event is not None and event.id == event.container_id:
                self._connections.ended(envelope.namespace, event.container_id, event.pid)
        except OrlopError as error:
            _log.warning("namespace=%s network: %s", envelope.namespace, error)
        except Exception:  # noqa: BLE001 - what comes later must be heard
            _log.exception("namespace=%s network", envelope.namespace)
