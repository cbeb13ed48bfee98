"""Labels of containers' records."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client.connection import Connection
from orlop.wire.services import containers_pb2


def change(connection: Connection, container: str, labels: Mapping[str, str]) -> None:
    """Set labels of the container with this id; an empty one is removed. Raises NotFound."""
    changed = containers_pb2.Container(id=container, labels=labels)
    mask = FieldMask(paths=[f"labels.{each}" for each in labels])
    connection.containers.update(
        containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask)
    )
