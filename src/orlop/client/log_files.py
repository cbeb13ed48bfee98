"""Where the logs of detached containers are: one file each, below the daemon's root."""

from __future__ import annotations

from pathlib import Path

from orlop.client.connection import Connection
from orlop.errors import NotFound
from orlop.wire.services import containers_pb2, introspection_pb2

LABEL = "orlop/log-uri"
PLUGIN_TYPE, PLUGIN_ID = "io.orlop.logs.v1", "file"


def path(connection: Connection, container: str) -> Path:
    """Where a container's log goes; the daemon tells its folder. Raises NotFound without one."""
    request = introspection_pb2.PluginsRequest(filters=[f"type=={PLUGIN_TYPE},id=={PLUGIN_ID}"])
    for plugin in connection.introspection.plugins(request).plugins:
        return Path(plugin.exports["root"], connection.namespace, f"{container}.log")
    raise NotFound("log folder: orlopd names none")


def remove(connection: Connection, container: containers_pb2.Container) -> None:
    """Remove a container's log, if its label names the one that is its own.

    A label is anybody's to set: any other file that it names is left alone.
    """
    uri = container.labels.get(LABEL)
    if uri is None:
        return
    own = path(connection, container.id)
    if uri == f"file://{own}":
        own.unlink(missing_ok=True)
