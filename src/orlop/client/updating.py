"""Change the limits of a container, in its record and of its running task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client.connection import Connection
from orlop.client.containers import SPEC_TYPE, spec_of
from orlop.errors import NotFound
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import STOPPED

RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


def update_limits(
    connection: Connection, container: containers_pb2.Container, changes: Mapping[str, Any]
) -> None:
    """`changes` is a part of the runtime spec's LinuxResources, as {"memory": {"limit": 1}}.

    The task is asked first: what the kernel refuses is not kept. Without a running one the change
    counts from the next start on.
    """
    if _has_process(connection, container.id):
        value = AnyMessage(type_url=RESOURCES_TYPE, value=json.dumps(changes).encode())
        request = tasks_pb2.UpdateTaskRequest(container_id=container.id, resources=value)
        connection.tasks.update(request)
    spec = spec_of(container)
    resources = spec.setdefault("linux", {}).setdefault("resources", {})
    for kind, fields in changes.items():
        resources[kind] = {**(resources.get(kind) or {}), **fields}
    changed = containers_pb2.Container(
        id=container.id, spec=AnyMessage(type_url=SPEC_TYPE, value=json.dumps(spec).encode())
    )
    connection.containers.update(
        containers_pb2.UpdateContainerRequest(
            container=changed, update_mask=FieldMask(paths=["spec"])
        )
    )


def _has_process(connection: Connection, container: str) -> bool:
    try:
        found = connection.tasks.get(tasks_pb2.GetRequest(container_id=container)).process
    except NotFound:
        return False
    return bool(found.status != STOPPED)
