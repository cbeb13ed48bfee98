"""Checkpoints of containers: made by criu, kept as content as long as the container is.

A label of the container's record names each, as `containerd.io/gc.ref.content.checkpoint.NAME`,
which also keeps it. Or a folder of this host holds them, one folder each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import labels, leases, restarts
from orlop.client.connection import Connection
from orlop.client.containers import CHECKPOINT_LABEL
from orlop.errors import AlreadyExists, NotFound, OrlopError
from orlop.rpc.context import validate_identifier
from orlop.rpc.convert import any_type, pack
from orlop.wire.runc_pb2 import CheckpointOptions, Options
from orlop.wire.services import containers_pb2, content_pb2, tasks_pb2
from orlop.wire.types_pb2 import Descriptor

_IMAGES = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
# What criu always writes.
_INVENTORY = "inventory.img"


class Origin(NamedTuple):
    """What a task is restored from: a checkpoint in the content store, or runtime options."""

    descriptor: Descriptor | None = None
    options: AnyMessage | None = None


def create(
    connection: Connection,
    container: containers_pb2.Container,
    name: str,
    *,
    folder: str = "",
    options: CheckpointOptions | None = None,
) -> None:
    """Keep the state of the container's processes as `name`; `options.exit` ends them then.

    With a `folder` of this host it is kept in there. A container that is to end does so for good,
    whatever its restart policy. Raises AlreadyExists, NotFound for a
    container that does not run, and what the runtime refuses with.
    """
    validate_identifier("checkpoint", name)
    if name in names(connection, container, folder):
        raise AlreadyExists(f'checkpoint "{name}" of container "{container.id}"')
    wanted = CheckpointOptions()
    if options is not None:
        wanted.CopyFrom(options)
    if folder:
        wanted.image_path = str(_place(folder, name))
    with leases.held(connection) as held, _for_good(connection, container, ends=wanted.exit):
        request = tasks_pb2.CheckpointTaskRequest(container_id=container.id, options=pack(wanted))
        for made in held.tasks.checkpoint(request).descriptors:
            if made.media_type == _IMAGES:
                labels.change(held, container.id, {CHECKPOINT_LABEL + name: made.digest})


@contextmanager
def _for_good(
    connection: Connection, container: containers_pb2.Container, *, ends: bool
) -> Iterator[None]:
    """Nobody starts the container again, unless it goes on after all."""
    if not ends:
        yield
        return
    restarts.expect(connection, container, running=False)
    try:
        yield
    except OrlopError:
        restarts.expect(connection, container, running=True)
        raise


def names(
    connection: Connection, container: containers_pb2.Container, folder: str = ""
) -> list[str]:
    """The checkpoints that there are, the oldest first."""
    if folder:
        found = Path(folder).glob(f"*/{_INVENTORY}")
        by_age = sorted(found, key=lambda path: path.stat().st_mtime_ns)
        return [path.parent.name for path in by_age]
    ages = {}
    for name, digest in _kept(container).items():
        try:
            info = connection.content.info(content_pb2.InfoRequest(digest=digest)).info
        except NotFound:
            continue
        ages[name] = (info.created_at.seconds, info.created_at.nanos)
    return sorted(ages, key=lambda name: ages[name])


def remove(
    connection: Connection, container: containers_pb2.Container, name: str, folder: str = ""
) -> None:
    """Raises NotFound."""
    if folder:
        place = _place(folder, name)
        if not (place / _INVENTORY).exists():
            raise NotFound(f'checkpoint "{name}" in "{folder}"')
        shutil.rmtree(place)
        return
    digest = _digest(container, name)
    labels.change(connection, container.id, {CHECKPOINT_LABEL + name: ""})
    if digest not in [each for other, each in _kept(container).items() if other != name]:
        _delete_blob(connection, digest)


def remove_all(connection: Connection, container: containers_pb2.Container) -> None:
    """The container is no more, nor are its checkpoints."""
    for digest in set(_kept(container).values()):
        _delete_blob(connection, digest)


def origin(
    connection: Connection, container: containers_pb2.Container, name: str, folder: str = ""
) -> Origin:
    """Where a task comes from that goes on at the checkpoint `name`, "" for the newest.

    Raises NotFound.
    """
    there = names(connection, container, folder)
    if not name and there:
        name = there[-1]
    if name not in there:
        told = f'"{name}" of container' if name else "of container"
        raise NotFound(f'checkpoint {told} "{container.id}"')
    if folder:
        options = Options()
        if any_type(container.runtime.options) == Options.DESCRIPTOR.full_name:
            options.ParseFromString(container.runtime.options.value)
        options.criu_image_path = str(_place(folder, name))
        return Origin(options=pack(options))
    digest = _digest(container, name)
    info = connection.content.info(content_pb2.InfoRequest(digest=digest)).info
    return Origin(Descriptor(media_type=_IMAGES, digest=digest, size=info.size))


def _place(folder: str, name: str) -> Path:
    validate_identifier("checkpoint", name)
    return Path(os.path.abspath(folder)) / name  # noqa: PTH100 - keeps links


def _kept(container: containers_pb2.Container) -> dict[str, str]:
    """Digests by the names of checkpoints."""
    return {
        key.removeprefix(CHECKPOINT_LABEL): value
        for key, value in container.labels.items()
        if key.startswith(CHECKPOINT_LABEL)
    }


def _digest(container: containers_pb2.Container, name: str) -> str:
    try:
        return _kept(container)[name]
    except KeyError:
        raise NotFound(f'checkpoint "{name}" of container "{container.id}"') from None


def _delete_blob(connection: Connection, digest: str) -> None:
    try:
        connection.content.delete(content_pb2.DeleteContentRequest(digest=digest))
    except NotFound:
        pass
