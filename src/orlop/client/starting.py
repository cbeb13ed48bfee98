"""Start a container's task again, from its record."""

from __future__ import annotations

from orlop.client import containers, log_files, restarts, snapshots
from orlop.client.connection import Connection
from orlop.client.stdio import Streams
from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import CREATED, STOPPED


def start(connection: Connection, container: containers_pb2.Container) -> None:
    """Run the container's process once more, detached; its output goes on in its log.

    Raises FailedPrecondition when it runs already, and what the runtime refuses with.
    """
    _delete_old(connection, container.id)
    mounts = snapshots.mounts_of(connection, container)
    uri = container.labels.get(log_files.LABEL, "")
    terminal = bool(containers.spec_of(container)["process"].get("terminal"))
    streams = Streams(stdout=uri, stderr="" if terminal else uri, terminal=terminal)
    restarts.expect(connection, container, running=True)
    containers.create_task(connection, container.id, mounts, streams)
    try:
        connection.tasks.start(tasks_pb2.StartRequest(container_id=container.id))
    except OrlopError:
        containers.delete_task(connection, container.id)
        raise


def _delete_old(connection: Connection, id: str) -> None:
    try:
        process = connection.tasks.get(tasks_pb2.GetRequest(container_id=id)).process
    except NotFound:
        return
    if process.status not in (STOPPED, CREATED):
        raise FailedPrecondition(f'container "{id}" runs already')
    containers.delete_task(connection, id)


def stop(
    connection: Connection,
    container: containers_pb2.Container,
    *,
    grace: float,
    signal_name: str = "",
) -> None:
    """Stop the container for good, whatever its restart policy; fine for one that does not run."""
    restarts.expect(connection, container, running=False)
    try:
        containers.stop(connection, container.id, grace=grace, signal_name=signal_name)
    except NotFound:
        pass  # it does not run, which is what was asked for
