"""Change the limits of a container, in its record and of its running task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import autoremoval, restarts, states
from orlop.client.connection import Connection
from orlop.client.containers import SPEC_TYPE, spec_of
from orlop.errors import FailedPrecondition
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
    task = states.task_of(connection, container.id)
    if task is not None and task.status != STOPPED:
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


def update_policy(connection: Connection, container: containers_pb2.Container, policy: str) -> None:
    """Give the container another restart policy, which counts from its next end on.

    Raises InvalidArgument for what is no policy, FailedPrecondition for a container that is
    removed when it ends.
    """
    if policy != "no" and autoremoval.is_wanted(container):
        raise FailedPrecondition(
            f'container "{container.id}" was run with --rm: it is removed when it ends'
        )
    restarts.choose(connection, container, policy, states.task_of(connection, container.id))
