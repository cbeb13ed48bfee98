"""Containers that are run with `--rm`: who removes them at their end, and which end is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orlop.client import containers, labels, states
from orlop.client.connection import Connection
from orlop.errors import NotFound
from orlop.wire.services import containers_pb2

LABEL = "orlop/auto-remove"
"""On a container that the daemon removes when it ends: the value is `BY_DAEMON`, or what `attended`
says of a client that removes it itself, if that lives then. Before it stands who restarts it, and
how often: while one of these lives, nobody removes it. Other values mean nothing."""
BY_DAEMON = "true"

_ATTENDED, _RESTARTING = "client:", "restarting:"
Record = containers_pb2.Container


def attended() -> str:
    """For the label: that this process sees the container's end."""
    return f"{_ATTENDED}{_mark()}"


def is_wanted(container: Record) -> bool:
    """Whether it was run with `--rm`."""
    value = container.labels.get(LABEL, "")
    return value == BY_DAEMON or value.startswith((_ATTENDED, _RESTARTING))


@contextmanager
def put_off(connection: Connection, container: Record) -> Iterator[None]:
    """Nobody removes the container for an end that it comes to within the block."""
    if not is_wanted(container):
        yield
        return
    ours = f"{_RESTARTING}{_mark()}:"
    labels.change(connection, container.id, {LABEL: ours + container.labels[LABEL]})
    try:
        yield
    finally:
        with suppress(NotFound):  # it was removed by name
            # Somebody else may have begun, or ended, to restart it as well.
            request = containers_pb2.GetContainerRequest(id=container.id)
            value = connection.containers.get(request).container.labels.get(LABEL, "")
            labels.change(connection, container.id, {LABEL: value.replace(ours, "", 1)})


def _mark() -> str:
    from orlop.sys.process import mark

    return mark(os.getpid())


def remove(connection: Connection, container: Record) -> None:
    """Remove a container that has ended, unless somebody starts it again, or has done so."""
    try:
        request = containers_pb2.GetContainerRequest(id=container.id)
        found = connection.containers.get(request).container
    except NotFound:
        return
    task = states.task_of(connection, container.id)
    if found.labels.get(LABEL) == container.labels[LABEL] and not states.of(found, task).alive:
        containers.remove(connection, found, force=False)
