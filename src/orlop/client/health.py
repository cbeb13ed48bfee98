"""How containers are, by the checks that orlopd runs in them."""

from __future__ import annotations

from orlop.client.connection import Connection
from orlop.errors import NotFound
from orlop.wire.services import health_pb2

ContainerHealth = health_pb2.ContainerHealth


def of(connection: Connection, container: str) -> ContainerHealth | None:
    """A container's health, None for one that is not checked."""
    try:
        request = health_pb2.GetHealthRequest(container_id=container)
        found: ContainerHealth = connection.health.get(request).health
    except NotFound:
        return None
    return found


def statuses(connection: Connection) -> dict[str, str]:
    """The status of every container that is checked."""
    found = connection.health.list(health_pb2.ListHealthRequest()).health
    return {each.container_id: each.status for each in found}
