"""Networks of containers: what a container's label asks for, and changes while it is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orlop.client.connection import Connection
from orlop.errors import AlreadyExists, InvalidArgument, NotFound

if TYPE_CHECKING:
    from orlop.wire.services.containers_pb2 import Container
    from orlop.wire.services.network_pb2 import InspectResponse, Network

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


def wishes(container: Container) -> dict[str, Any]:
    """What the label says, empty without one; InvalidArgument for one that is damaged."""
    text = container.labels.get(LABEL)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument(f'container "{container.id}": label {LABEL} is no JSON object')
    return found


def connect(
    connection: Connection,
    container: Container,
    network: str,
    *,
    ip: str = "",
    ip6: str = "",
    aliases: Sequence[str] = (),
) -> None:
    """Put a container into one more network: now if it runs, and whenever it is started.

    Raises InvalidArgument for one that shares another's network, AlreadyExists, NotFound.
    """
    from orlop.wire.services.network_pb2 import AttachRequest

    name, wanted = get(connection, network).name, wishes(container)
    if wanted.get("mode", "none") not in ("none", "networks") or _shares(container):
        raise InvalidArgument(f'container "{container.id}" has no network namespace of its own')
    places = wanted.get("networks") or []
    if any(each.get("network") == name for each in places):
        raise AlreadyExists(f'container "{container.id}" in network "{name}"')
    place = {"network": name, "ip": ip, "ip6": ip6, "aliases": list(aliases)}
    kept = {key: value for key, value in place.items() if value}
    request = AttachRequest(
        container_id=container.id, network=name, ip=ip, ip6=ip6, aliases=aliases
    )
    with suppress(NotFound):  # it does not run: its next start will do it
        connection.networks.attach(request)
    _set(connection, container, {**wanted, "mode": "networks", "networks": [*places, kept]})


def disconnect(connection: Connection, container: Container, network: str) -> None:
    """Take a container out of a network; NotFound if it is not in there."""
    from orlop.wire.services.network_pb2 import DetachRequest

    found, wanted = get(connection, network), wishes(container)
    places = wanted.get("networks") or []
    rest = [each for each in places if each.get("network") not in (found.name, found.id)]
    try:
        connection.networks.detach(DetachRequest(container_id=container.id, network=found.id))
    except NotFound:
        if len(rest) == len(places):
            raise
    _set(connection, container, {**wanted, "networks": rest})


def _shares(container: Container) -> bool:
    """Whether its network is the host's, or one that somebody else has made."""
    kinds = json.loads(container.spec.value).get("linux", {}).get("namespaces", ())
    return not any(each["type"] == "network" and "path" not in each for each in kinds)


def _set(connection: Connection, container: Container, wanted: dict[str, Any]) -> None:
    from google.protobuf.field_mask_pb2 import FieldMask

    from orlop.wire.services import containers_pb2

    changed = containers_pb2.Container(id=container.id, labels={LABEL: json.dumps(wanted)})
    mask = FieldMask(paths=[f"labels.{LABEL}"])
    connection.containers.update(
        containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask)
    )
