"""Guests: network namespaces that others have made, in our networks, as CNI plugins bring them.

In the records a guest is a container called "cni:GROUP/ID/INTERFACE", as none of ours can be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.network.checking import check_place
from orlop.network.cni import Attachment
from orlop.network.cni.model import check, check_name
from orlop.network.connections import Connections
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Port, Wish
from orlop.network.store import GUEST


class Guest(NamedTuple):
    """Who is attached: the name of a network configuration, a container's id, an interface."""

    group: str
    id: str
    interface: str

    @property
    def name(self) -> str:
        return f"{GUEST}{self.group}/{self.id}/{self.interface}"

    @property
    def position(self) -> int:
        """The number of its interface: routes of those with a lower one come first."""
        found = re.search(r"[0-9]{1,4}$", self.interface)
        return int(found[0]) if found else 0


class Guests:
    """Who comes with a network namespace of its own. Usable from any thread."""

    def __init__(self, connections: Connections, kernel: Kernel) -> None:
        self._connections = connections
        self._kernel = kernel

    def attach(
        self, namespace: str, guest: Guest, netns: str, wish: Wish, ports: Sequence[Port]
    ) -> Endpoint:
        """Put it into a network, with ports of the host that lead to it.

        Raises AlreadyExists if it is there, and what refuses a wish.
        """
        _check(guest)
        _check_path(netns)
        if self._connections.endpoints(namespace, guest.name):
            raise AlreadyExists(f'attachment "{guest.name}"')
        return self._connections.enter(
            namespace, guest.name, wish, netns, guest.position, guest.interface, ports
        )

    def detach(self, namespace: str, guest: Guest) -> None:
        """Take it out; fine if it is not in there."""
        _check(guest)
        self._connections.release(namespace, guest.name)

    def check(self, namespace: str, guest: Guest, netns: str) -> Endpoint:
        """Where it is; NotFound if it is nowhere, FailedPrecondition if it is not as it was put."""
        _check(guest)
        _check_path(netns)  # none would be the host's
        found = self._connections.endpoints(namespace, guest.name)
        if not found:
            raise NotFound(f'attachment "{guest.name}"')
        (endpoint,) = found
        check_place(self._kernel, self._connections.network_of(endpoint), endpoint, netns)
        return endpoint

    def keep(self, namespace: str, group: str, valid: Collection[Guest]) -> None:
        """Take out all of a group but those that are valid."""
        check_name("network", group)
        names = {Guest(group, each.id, each.interface).name for each in valid}
        for each in self._connections.endpoints(namespace):
            if each.container.startswith(f"{GUEST}{group}/") and each.container not in names:
                self._connections.release(namespace, each.container)


def _check(guest: Guest) -> None:
    check_name("network", guest.group)
    check(Attachment(container_id=guest.id, ifname=guest.interface))


def _check_path(netns: str) -> None:
    if not netns.startswith("/"):
        raise InvalidArgument(f'network namespace "{netns}" is no absolute path')
