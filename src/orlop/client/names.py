"""What containers are called.

A container's id is fixed for life. It is its name too, until a rename gives it another by a label;
who creates a container under a name whose id a renamed one still has gets a random id, and the
label. So ids stay what other clients of the daemon see, and every name leads to one container.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from orlop.client import labels
from orlop.client.connection import Connection
from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.rpc.context import validate_identifier
from orlop.wire.services import containers_pb2

LABEL = "orlop/name"
Record = containers_pb2.Container


def of(container: Record) -> str:
    """What a container is called."""
    return container.labels.get(LABEL) or container.id


def random_id() -> str:
    """A fresh container id: 12 hexadecimal digits."""
    return os.urandom(6).hex()


def find(connection: Connection, wanted: str) -> Record:
    """The container with this name, this id, or a name or id that alone begins so.

    Raises NotFound, and InvalidArgument where several begin so.
    """
    by_id = _with_id(connection, wanted)
    if by_id is not None and of(by_id) == wanted:
        return by_id
    if renamed := _renamed(connection, wanted):
        return renamed[0]
    if by_id is not None:
        return by_id
    found = [each for each in listed(connection) if _begins(each, wanted)] if wanted else []
    if len(found) > 1:
        names = ", ".join(sorted(of(each) for each in found))
        raise InvalidArgument(f'"{wanted}" begins the names of several containers: {names}')
    if not found:
        raise NotFound(f'container "{wanted}"')
    return found[0]


def listed(connection: Connection, *filters: str) -> list[Record]:
    """The containers that any of the filters match, or all; one message could not hold them."""
    request = containers_pb2.ListContainersRequest(filters=filters)
    return [each.container for each in connection.containers.list_stream(request)]


@contextmanager
def naming(connection: Connection) -> Iterator[None]:
    """Gives names, one client at a time: the daemon knows ids, and would not see two alike."""
    path = connection.directory / "names.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def claim(connection: Connection, name: str) -> tuple[str, dict[str, str]]:
    """Id and labels for a new container called `name`; call it while `naming`.

    Raises AlreadyExists when another is called so.
    """
    validate_identifier("container", name)
    by_id = _refuse_taken(connection, name)
    return (random_id(), {LABEL: name}) if by_id else (name, {})


def rename(connection: Connection, container: Record, name: str) -> None:
    """Call a container `name` from now on. Raises AlreadyExists when another is called so."""
    validate_identifier("container", name)
    with naming(connection):
        _refuse_taken(connection, name)
        labels.change(connection, container.id, {LABEL: "" if name == container.id else name})


def _refuse_taken(connection: Connection, name: str) -> Record | None:
    """The container with this id, which has another name now."""
    by_id = _with_id(connection, name)
    if by_id is not None and of(by_id) == name:
        raise AlreadyExists(f'container "{name}"')
    if renamed := _renamed(connection, name):
        raise AlreadyExists(f'container "{name}" (its id is "{renamed[0].id}")')
    return by_id


def _begins(container: Record, start: str) -> bool:
    return container.id.startswith(start) or of(container).startswith(start)


def _with_id(connection: Connection, id: str) -> Record | None:
    try:
        request = containers_pb2.GetContainerRequest(id=id)
        found: Record = connection.containers.get(request).container
    except (NotFound, InvalidArgument):
        return None
    return found


def _renamed(connection: Connection, name: str) -> list[Record]:
    # A string of the filter grammar is one of Go's, as of JSON.
    return listed(connection, f'labels."{LABEL}"=={json.dumps(name)}')
