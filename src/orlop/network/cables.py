"""What leads from a container into its networks: plugged in, pulled out, and made good again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from orlop.errors import NotFound, OrlopError, Unimplemented
from orlop.events import Publisher
from orlop.network import bridge, uplink
from orlop.network.kernel import Kernel
from orlop.network.model import Endpoint, Link, Network
from orlop.network.networks import Networks
from orlop.network.operations import AnyOperation
from orlop.wire.services.network_pb2 import NetworkAttach

_DYING, _PAUSE = 5.0, 0.05  # seconds
_IN_USE = "(EADDRINUSE)"


class Cables:
    """The kernel's side of who is in which network, but for CNI's. Thread-safe."""

    def __init__(self, networks: Networks, kernel: Kernel, publisher: Publisher) -> None:
        self._networks = networks
        self._kernel = kernel
        self._publisher = publisher

    def plug(self, endpoint: Endpoint, ns: str) -> None:
        """Put the network namespace at the path `ns` where it belongs, and tell of it."""
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
            self._unplug(network, endpoint, ns)
            self._plug(network, endpoint, ns, mtu)
        event = NetworkAttach(
            network_id=network.id, container_id=endpoint.container, addresses=endpoint.addresses
        )
        self._publisher.publish(endpoint.namespace, "/network/attach", event)

    def _plug(self, network: Network, endpoint: Endpoint, ns: str, mtu: int) -> None:
        """A container that has just ended may still have its place on the parent.

        The kernel removes the interfaces of a network namespace in its own time, after the last
        process.
        """
        end = time.monotonic() + _DYING
        while True:
            try:
                self._kernel.apply(*_plugging(network, endpoint, ns, mtu))
            except OrlopError as error:
                if not _is_taken(network, endpoint, error) or time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def unplug(self, endpoint: Endpoint, ns: str = "") -> None:
        """Take away what there is of it.

        What has no end on the host goes with the container's namespace, or out of that at the path
        `ns`.
        """
        network = self._networks.get(endpoint.namespace, endpoint.network)
        self._unplug(network, endpoint, ns)

    def _unplug(self, network: Network, endpoint: Endpoint, ns: str) -> None:
        if network.is_bridge:
            self._kernel.apply(*bridge.unplug(endpoint))
            return
        inside: list[Link] = []
        if ns:
            with suppress(NotFound):  # it has ended
                inside = self._kernel.links(ns)
        self._kernel.apply(*uplink.unplug(network, endpoint, ns, inside))

    def keep_worker(self) -> None:
        """Have the network worker at hand as long as somebody is in a network."""
        before, self._kernel.keep = self._kernel.keep, self._networks.store.occupied()
        if before and not self._kernel.keep:
            with suppress(OrlopError):
                self._kernel.links()  # by which it hears that it may go


def _is_taken(network: Network, endpoint: Endpoint, error: OrlopError) -> bool:
    """Whether what the kernel says may come from an interface that is about to go.

    The hardware address is in use, or else the parent: it is busy for one of another driver, and
    invalid for one that would have it for itself, in the mode passthru.
    """
    if network.is_bridge:
        return False
    if _IN_USE in error.message:
        return True
    made = error.message.startswith(f'add {network.driver} "{endpoint.link}"')
    reasons = ("(EBUSY)", "(EINVAL)") if network.mode == "passthru" else ("(EBUSY)",)
    return made and any(each in error.message for each in reasons)


def _plugging(network: Network, endpoint: Endpoint, ns: str, mtu: int) -> Iterator[AnyOperation]:
    if network.is_bridge:
        yield from bridge.plug(network, endpoint, ns, mtu)
    else:
        yield from uplink.plug(network, endpoint, ns)
