"""Whether a network can be used, and whether those who are in it are as they were put there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.network import uplink
from orlop.network.cni_records import is_cni
from orlop.network.connections import Connections, PidOf
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Network
from orlop.network.namespaces import of_process
from orlop.network.networks import DEFAULT, Networks
from orlop.network.store import GUEST


class Flaw(NamedTuple):
    """What is wrong, with a container, or "" for the network itself."""

    container: str
    text: str


class Checks:
    """Looks, and changes nothing. Usable from any thread."""

    def __init__(
        self, networks: Networks, connections: Connections, kernel: Kernel, pid_of: PidOf
    ) -> None:
        self._networks = networks
        self._connections = connections
        self._kernel = kernel
        self._pid_of = pid_of

    def of_network(self, namespace: str, name: str) -> Iterator[Flaw]:
        """Why nobody can be put into it now; NotFound without it.

        For a network of CNI its plugins are asked (STATUS, from 1.1 on).
        """
        network = self._named(namespace, name)
        try:
            if is_cni(name):
                self._connections.cni.status(name)
            elif network is None or network.is_bridge:
                self._networks.check_firewall()
        except OrlopError as error:
            yield Flaw("", error.message)

    def of_containers(self, namespace: str, name: str) -> Iterator[Flaw]:
        """What is wrong with those who are in it.

        For a network of CNI its plugins are asked (CHECK, from 0.4.0 on).
        """
        network = self._named(namespace, name)
        if network is None:
            return
        for each in self._connections.endpoints(namespace, network=network.id):
            try:
                self._check(network, each)
            except OrlopError as error:
                yield Flaw(each.container, error.message)

    def _named(self, namespace: str, name: str) -> Network | None:
        """None for the default one before it comes into being, when it is needed."""
        try:
            return self._connections.named(namespace, name)
        except NotFound:
            if name != DEFAULT:
                raise
            return None

    def _check(self, network: Network, endpoint: Endpoint) -> None:
        if is_cni(network.id):
            self._connections.cni.check(endpoint)
            return
        guest = endpoint.container.startswith(GUEST)  # whose namespace it alone can name
        pid = 0 if guest else self._pid_of(endpoint.namespace, endpoint.container)
        check_place(self._kernel, network, endpoint, of_process(pid) if pid else "")


def check_place(kernel: Kernel, network: Network, endpoint: Endpoint, netns: str) -> None:
    """Raise FailedPrecondition if the host's end of a cable, or the other one, is not in place.

    The other one is looked for in the namespace `netns`, if that is known.
    """
    outside = [each for each in kernel.links() if each.name == endpoint.link]
    if network.is_bridge and [each.master for each in outside] != [network.bridge]:
        raise FailedPrecondition(f'"{endpoint.link}" is no more on bridge "{network.bridge}"')
    if netns:
        links = kernel.links(netns)
        if network.is_bridge:  # whatever the container calls it
            inside = [each for each in links if each.index == outside[0].parent]
        else:
            inside = uplink.ours(network, endpoint, links)
        have = {address.partition("/")[0] for each in inside for address in each.addresses}
        if missing := [each for each in endpoint.addresses if each not in have]:
            raise FailedPrecondition(
                f'interface "{endpoint.inside}" in "{netns}" lacks {", ".join(missing)}'
            )
