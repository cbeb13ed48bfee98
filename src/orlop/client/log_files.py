"""Where the logs of containers are, and how they are written: drivers and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from orlop.client.connection import Connection
from orlop.errors import InvalidArgument, NotFound
from orlop.logger import options
from orlop.wire.services import containers_pb2, tasks_pb2

LABEL = "orlop/log-uri"
_OTHER_LABELS = ("containerd.io/restart.loguri", "nerdctl/log-uri")
FILE, NONE = "file", "none"
DRIVERS = (*options.FORMATS, FILE, NONE)
PLUGIN_TYPE, PLUGIN_ID = "io.orlop.logs.v1", "file"


class LogFile(NamedTuple):
    """A log that can be read; `format` is a driver's name."""

    path: Path
    format: str


def folder(connection: Connection, container: str) -> Path:
    """What holds a container's log; the daemon tells where. Raises NotFound without one."""
    exports = connection.exports(PLUGIN_TYPE, PLUGIN_ID)
    if not exports:
        raise NotFound("log folder: orlopd names none")
    return Path(exports["root"], connection.namespace, container)


def uri(connection: Connection, container: str, driver: str, values: Mapping[str, str]) -> str:
    """Where a container's output is to go, as tasks are told; "" is nowhere.

    `values` are the driver's options: `path`, and for a driver that rotates `max-size` and
    `max-file`. Raises InvalidArgument.
    """
    if driver == NONE:
        _refuse(driver, values, ())
        return ""
    path = values.get("path") or str(folder(connection, container) / "log")
    if driver == FILE:
        _refuse(driver, values, ("path",))
        return f"file://{quote(path)}"
    _refuse(driver, values, ("path", "max-size", "max-file"))
    return options.parse({**values, "path": path, "format": driver}).uri


def _refuse(driver: str, values: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in values:
        if name not in known:
            offer = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidArgument(f'log driver "{driver}" has no option "{name}"; {offer}')


def find(connection: Connection, container: containers_pb2.Container) -> LogFile:
    """The log of a container, by its labels or by what its task was told.

    Raises NotFound for one whose output goes elsewhere.
    """
    places = (container.labels.get(label, "") for label in (LABEL, *_OTHER_LABELS))
    uri = next(filter(None, places), "") or _of_task(connection, container.id)
    found = of_uri(uri)
    if found is None:
        where = f'goes to "{uri}"' if uri else "is kept nowhere"
        raise NotFound(f'log of container "{container.id}": its output {where}')
    return found


def _of_task(connection: Connection, container: str) -> str:
    """Where the output of a task goes, "" without one."""
    try:
        process = connection.tasks.get(tasks_pb2.GetRequest(container_id=container)).process
    except NotFound:
        return ""
    return str(process.stdout).removeprefix("attach+").removeprefix("attach:")


def of_uri(uri: str) -> LogFile | None:
    """The log that a URI of stdio makes, if it is a file or one of orlop's log writers."""
    if (writer := options.of_uri(uri)) is not None:
        return LogFile(Path(writer.path), writer.format)
    parts = urlsplit(uri)
    return LogFile(Path(unquote(parts.path)), FILE) if parts.scheme == "file" else None


def remove(connection: Connection, container: containers_pb2.Container) -> None:
    """Remove a container's log, if its label names the one that is its own.

    A label is anybody's to set: any other file that it names is left alone.
    """
    found = of_uri(container.labels.get(LABEL, ""))
    if found is None:
        return
    own = folder(connection, container.id)
    if found.path.parent == own:
        with suppress(OSError):
            for file in own.iterdir():
                file.unlink(missing_ok=True)
            own.rmdir()
