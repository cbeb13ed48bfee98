"""Start a container's task again, from its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orlop.client import attach, containers, restarts, snapshots
from orlop.client.connection import Connection
from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import CREATED, STOPPED

if TYPE_CHECKING:
    from orlop.client.checkpoints import Origin


def start(
    connection: Connection, container: containers_pb2.Container, origin: Origin | None = None
) -> None:
    """Run the container's process once more; its output goes on in its log.

    With an `origin` the process goes on where a checkpoint of it was made.

    Raises FailedPrecondition when it runs already, and what the runtime refuses with.
    """
    create_task(connection, container, origin)
    with undone(connection, container):
        containers.start_task(connection, container.id)


def create_task(
    connection: Connection, container: containers_pb2.Container, origin: Origin | None = None
) -> None:
    """A fresh task, not yet started; what is left of the last one goes first."""
    _delete_old(connection, container.id)
    mounts = snapshots.mounts_of(connection, container)
    restarts.expect(connection, container, running=True)
    containers.create_task(connection, container.id, mounts, attach.streams(container), origin)


@contextmanager
def undone(connection: Connection, container: containers_pb2.Container) -> Iterator[None]:
    """Delete the task again if what follows does not start it."""
    try:
        yield
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
    grace: float | None = None,
    signal_name: str = "",
) -> None:
    """Stop the container for good, whatever its restart policy; fine for one that does not run.

    Raises InvalidArgument for a signal that Linux has not.
    """
    containers.stop_signal(container, signal_name)
    restarts.expect(connection, container, running=False)
    try:
        containers.stop(connection, container, grace=grace, signal_name=signal_name)
    except NotFound:
        pass  # it does not run, which is what was asked for
