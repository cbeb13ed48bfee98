"""Networks of containers: what a container's label asks for, and what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orlop.client.connection import Connection
from orlop.errors import NotFound

if TYPE_CHECKING:
    from orlop.wire.services.containers_pb2 import Container
    from orlop.wire.services.network_pb2 import InspectResponse, Network, Rates

LABEL = "orlop/network"
"""A JSON object: mode, networks, hosts, dns…; the daemon connects whoever has it."""
_PLUGIN = ("io.orlop.network.v1", "bridge")


def mount_points(container: Container) -> list[str]:
    """Empty files, by their paths below the root, on which the daemon mounts a container's own."""
    if LABEL not in container.labels:
        return []
    return [f"etc/{name}" for name in ("hosts", "hostname", "resolv.conf")]


def default(connection: Connection) -> str:
    """The network of containers that are told none: bridge, host or none."""
    return connection.exports(*_PLUGIN).get("default", "none")


def netns_path(connection: Connection, name: str) -> str:
    """Where a named network namespace is pinned; NotFound."""
    from orlop.wire.services.network_pb2 import ListNetNSRequest

    for each in connection.netns.list(ListNetNSRequest()).netns:
        if each.name == name:
            return str(each.path)
    raise NotFound(f'network namespace "{name}"')


def get(connection: Connection, name: str) -> Network:
    """A network by name or id; raises NotFound."""
    from orlop.wire.services.network_pb2 import GetNetworkRequest

    found: Network = connection.networks.get(GetNetworkRequest(name=name)).network
    return found


def inspect(connection: Connection, *, container: str = "", network: str = "") -> InspectResponse:
    """Where a container is and which ports lead to it, or who is in a network."""
    from orlop.wire.services.network_pb2 import InspectRequest

    request = InspectRequest(container_id=container, network=network)
    found: InspectResponse = connection.networks.inspect(request)
    return found


def flaws(connection: Connection, network: str) -> list[str]:
    """What is wrong with a network, and with who is in it; raises NotFound."""
    from orlop.wire.services.network_pb2 import CheckNetworkRequest

    request = CheckNetworkRequest(network=network, containers=True)
    return [
        f'container "{each.container_id}": {each.text}' if each.container_id else each.text
        for each in connection.networks.check(request).flaws
    ]


def connect(
    connection: Connection,
    container: str,
    network: str,
    *,
    ip: str = "",
    ip6: str = "",
    aliases: Sequence[str] = (),
    rates: Rates | None = None,
) -> None:
    """Put a container into one more network: now if it runs, and whenever it is started.

    Its rates are those of its first network if none are given. Raises InvalidArgument for one that
    shares another's network, AlreadyExists, NotFound.
    """
    from orlop.wire.services.network_pb2 import AttachRequest

    request = AttachRequest(
        container_id=container, network=network, ip=ip, ip6=ip6, aliases=aliases, rates=rates,
        keep=True,
    )  # fmt: skip
    connection.networks.attach(request)


def disconnect(connection: Connection, container: str, network: str) -> None:
    """Take a container out of a network, also for its next starts; NotFound if it is not in it."""
    from orlop.wire.services.network_pb2 import DetachRequest

    connection.networks.detach(DetachRequest(container_id=container, network=network, keep=True))
