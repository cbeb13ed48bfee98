"""Copy files between containers and this host, by the rules of `docker cp`.

Each end is a process of its own (`orlop.client.copier`), a tar goes from one to the other. A
running container is seen as its first process sees it, volumes and all; a stopped one's snapshot
and volumes are mounted where nobody else sees them. Nothing in a container leads out of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orlop.client import containers, rootfs, snapshots
from orlop.client.connection import Connection
from orlop.errors import FailedPrecondition, NotFound, OrlopError, Unknown, from_code
from orlop.sys.mount import Mount
from orlop.tar.sides import for_reading
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import STOPPED

_COMMAND = (sys.executable, "-I", "-m", "orlop.client.copier")


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a container, absolute or from its root; or on this host, without a container.

    For a folder, "/." at its end means what is in it.
    """

    path: str
    container: containers_pb2.Container | None = None


def copy(
    connection: Connection,
    source: Place,
    target: Place,
    *,
    archive: bool = False,
    follow: bool = False,
) -> None:
    """Copy a file or a folder with all that is in it, with modes, times and attributes.

    Into a folder that is there, or as what is not there yet. `follow` a link as source; `archive`
    keeps owners, else what comes here is the caller's, and what goes into a container root's.
    Raises NotFound, and FailedPrecondition or InvalidArgument where a file would have to take a
    folder's place, or a folder a file's.
    """
    owner = None
    if not archive:
        owner = (0, 0) if target.container is not None else (os.geteuid(), os.getegid())
    with ExitStack() as stack:
        pack = _pack(connection, source, stack, follow=follow)
        unpack = _unpack(connection, target, stack, owner=owner, as_is=False)
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            packing = _start(pack, stack, stdin=subprocess.DEVNULL, stdout=write)
            unpacking = _start(unpack, stack, stdin=read, stdout=subprocess.DEVNULL)
        finally:
            os.close(read)
            os.close(write)
        failures = [_failure(packing, source), _failure(unpacking, target)]
    for failure in failures:
        if failure is not None:
            raise failure


def copy_out(connection: Connection, source: Place, out: int, *, follow: bool = False) -> None:
    """Write a file or folder as a tar to the descriptor `out`."""
    with ExitStack() as stack:
        pack = _pack(connection, source, stack, follow=follow)
        packing = _start(pack, stack, stdin=subprocess.DEVNULL, stdout=out)
        failure = _failure(packing, source)
    if failure is not None:
        raise failure


def copy_in(connection: Connection, archive: int, target: Place) -> None:
    """Unpack the tar from the descriptor `archive` in a folder, as it is, owners and all.

    Raises NotFound without the folder, InvalidArgument for what is no tar.
    """
    with ExitStack() as stack:
        unpack = _unpack(connection, target, stack, owner=None, as_is=True)
        unpacking = _start(unpack, stack, stdin=archive, stdout=subprocess.DEVNULL)
        failure = _failure(unpacking, target)
    if failure is not None:
        raise failure


Process = subprocess.Popen[bytes]
Order = dict[str, Any]


def _pack(connection: Connection, source: Place, stack: ExitStack, *, follow: bool) -> Order:
    place = _where(connection, source, stack, write=False)
    return {"action": "pack", "path": _path(source), "follow": follow, "place": place}


def _unpack(
    connection: Connection,
    target: Place,
    stack: ExitStack,
    *,
    owner: tuple[int, int] | None,
    as_is: bool,
) -> Order:
    place = _where(connection, target, stack, write=True)
    path = _path(target)
    return {"action": "unpack", "path": path, "owner": owner, "as_is": as_is, "place": place}


def _start(order: Order, stack: ExitStack, *, stdin: int, stdout: int) -> Process:
    """Start a copier; it ends with the stack, before what it was given, and with this process."""
    process = stack.enter_context(
        subprocess.Popen(
            [*_COMMAND, json.dumps({**order, "parent": os.getpid()})],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us: we kill it
        )
    )
    stack.callback(_end, process)
    return process


def _end(process: Process) -> None:
    process.kill()
    process.wait()


def _path(place: Place) -> str:
    if place.container is not None:
        return place.path
    kept = "/" if place.path.endswith("/") else "/." if place.path.endswith("/.") else ""
    inside = place.path == "."
    return os.path.abspath(place.path) + ("/." if inside else kept)  # noqa: PTH100 - keeps links


def _failure(process: Process, place: Place) -> OrlopError | None:
    """How an end failed, unless it did not, or only as the other one did."""
    assert process.stderr is not None
    told = process.stderr.read().decode(errors="replace").strip()
    process.wait()
    if process.returncode == 0 or (process.returncode == 1 and not told):
        return None
    where = "this host" if place.container is None else f'container "{place.container.id}"'
    try:
        answer = json.loads(told)
    except ValueError:
        return Unknown(f"copying in {where} failed: {told or process.returncode}")
    return from_code(answer["code"], f"{answer['message']} in {where}")


def _where(
    connection: Connection, place: Place, stack: ExitStack, *, write: bool
) -> dict[str, Any]:
    """Where the files of a place are, for the copier."""
    if place.container is None:
        return {}
    container = place.container
    if pid := _pid(connection, container.id):
        return {"pid": pid}
    spec = containers.spec_of(container)
    if write and spec.get("root", {}).get("readonly"):
        raise FailedPrecondition(f'root filesystem of container "{container.id}" is read-only')
    mounts = _mounts(connection, container, spec)
    ids = _ids(spec.get("linux") or {})
    if not write and not ids:
        mounts = for_reading(mounts)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="orlop-copy-"))
    return {
        "mounts": [[m.type, m.source, m.target, list(m.options)] for m in mounts],
        "binds": _binds(spec.get("mounts") or ()),
        "ids": ids,
        "folder": folder,
    }


def _pid(connection: Connection, container: str) -> int:
    """The first process of a container that has one."""
    try:
        request = tasks_pb2.GetRequest(container_id=container)
        found = connection.tasks.get(request).process
    except NotFound:
        return 0
    return 0 if found.status == STOPPED else int(found.pid)


def _mounts(
    connection: Connection, container: containers_pb2.Container, spec: Mapping[str, Any]
) -> list[Mount]:
    if container.snapshot_key:
        return [rootfs.to_mount(m) for m in snapshots.mounts_of(connection, container)]
    root = spec.get("root", {}).get("path", "")
    if not Path(root).is_absolute():
        raise FailedPrecondition(f'container "{container.id}" has no files while it does not run')
    return [Mount("bind", root, options=("rbind", "rw"))]


def _binds(mounts: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Source, target and whether it is read-only of each volume."""
    return [
        [each["source"], each["destination"], "ro" in (each.get("options") or ())]
        for each in mounts
        if each.get("type") == "bind" or {"bind", "rbind"} & set(each.get("options") or ())
    ]


def _ids(linux: Mapping[str, Any]) -> list[str]:
    """How uids and gids are mapped, none for a container without a user namespace."""
    kinds = [linux.get("uidMappings") or (), linux.get("gidMappings") or ()]
    if not all(kinds):
        return []
    return [
        ",".join(f"{each['containerID']}:{each['hostID']}:{each['size']}" for each in ranges)
        for ranges in kinds
    ]
