"""Containers and their tasks: start, stop, remove, and what a list shows of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orlop.client import names, restarts, states
from orlop.client.connection import Connection
from orlop.client.stdio import Streams
from orlop.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OrlopError,
    Unavailable,
)
from orlop.wire.services import containers_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import STOPPED
from orlop.wire.types_pb2 import Mount as WireMount

if TYPE_CHECKING:
    from orlop.client.checkpoints import Origin

RUNTIME = "io.containerd.runc.v2"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
STOP_SIGNAL_LABEL = "io.containerd.image.config.stop-signal"
STOP_TIMEOUT_LABEL = "orlop/stop-timeout"
NAMESPACES_LABEL = "orlop/namespaces"
"""A JSON object as {"pid": ID}: whose namespaces the daemon gives a container at each start."""
CHECKPOINT_LABEL = "containerd.io/gc.ref.content.checkpoint."
"""With a checkpoint's name after it, on a container that has it; the value is its digest."""

_STOP_GRACE = 10.0


def create_task(
    connection: Connection,
    container: str,
    mounts: Sequence[WireMount],
    streams: Streams,
    origin: Origin | None = None,
) -> int:
    """Create the container's task, not yet started; its pid, 0 for one to be restored."""
    answer = connection.tasks.create(
        tasks_pb2.CreateTaskRequest(
            container_id=container,
            rootfs=mounts,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
            checkpoint=origin.descriptor if origin is not None else None,
            options=origin.options if origin is not None else None,
        )
    )
    return int(answer.pid)


def start_task(connection: Connection, container: str) -> None:
    connection.tasks.start(tasks_pb2.StartRequest(container_id=container))


def delete_task(connection: Connection, container: str) -> int | None:
    """Delete a stopped task; its exit status, or None where there is none."""
    try:
        answer = connection.tasks.delete(tasks_pb2.DeleteTaskRequest(container_id=container))
    except NotFound:
        return None
    return int(answer.exit_status)


def stop(
    connection: Connection,
    container: containers_pb2.Container,
    *,
    grace: float | None = None,
    signal_name: str = "",
) -> None:
    """Ask the container's process to end, and kill it after `grace` seconds, never if negative.

    What is not given is the container's own: its stop timeout or 10 seconds, its stop signal or
    SIGTERM. Raises NotFound for a container without a running task.
    """
    if grace is None:
        grace = _seconds(container.labels.get(STOP_TIMEOUT_LABEL, ""))
    send_signal(connection, container.id, stop_signal(container, signal_name))
    try:
        wait(connection, container.id, timeout=grace if grace >= 0 else None)
    except DeadlineExceeded:
        send_signal(connection, container.id, signal.SIGKILL)
        wait(connection, container.id)


def stop_signal(container: containers_pb2.Container, name: str = "") -> int:
    """What asks a container's process to end: the signal of that name, or its own, or SIGTERM.

    Raises InvalidArgument for a name that Linux has not; an image may call its own what it wants.
    """
    if name:
        return signal_number(name)
    with suppress(InvalidArgument):
        return signal_number(container.labels.get(STOP_SIGNAL_LABEL, ""))
    return int(signal.SIGTERM)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _STOP_GRACE


def wait(connection: Connection, container: str, timeout: float | None = None) -> int:
    request = tasks_pb2.WaitRequest(container_id=container)
    return int(connection.tasks.wait(request, timeout=timeout).exit_status)


def send_signal(
    connection: Connection, container: str, number: int, *, everything: bool = False
) -> None:
    connection.tasks.kill(
        tasks_pb2.KillRequest(container_id=container, signal=number, all=everything)
    )


def close_stdin(connection: Connection, container: str, exec_id: str = "") -> None:
    """The process gets end of file after what has been typed; fine if it has ended."""
    request = tasks_pb2.CloseIORequest(container_id=container, exec_id=exec_id, stdin=True)
    with suppress(NotFound):
        connection.tasks.close_io(request)


def signal_number(name: str) -> int:
    """`9`, `KILL` and `SIGKILL` are one, also `SIGRTMIN+3` and `SIGRTMAX-3`.

    Raises InvalidArgument for one that Linux has not.
    """
    text = name.upper().removeprefix("SIG")
    sign = {"RTMIN": "+", "RTMAX": "-"}.get(text[:5], "")
    base, given, offset = text.partition(sign) if sign else (text, "", "")
    number = 0
    if text.isdecimal():
        number = int(text)
    elif f"SIG{base}" in signal.Signals.__members__ and (offset.isdecimal() or not given):
        number = int(signal.Signals[f"SIG{base}"]) + int(f"{sign}{offset}" if offset else 0)
    least = signal.SIGRTMIN if offset else 1
    if not least <= number < signal.NSIG:
        raise InvalidArgument(f'signal "{name}" is not one that Linux has')
    return number


def get(connection: Connection, container: str) -> containers_pb2.Container:
    """The record of the container that `container` names; see `names.find`."""
    return names.find(connection, container)


def list_records(connection: Connection) -> list[containers_pb2.Container]:
    return names.listed(connection)


def remove(connection: Connection, container: containers_pb2.Container, *, force: bool) -> None:
    """Remove task, record, snapshot, log and checkpoints of a container.

    Raises FailedPrecondition when it still runs, unless `force` kills it first, and has it not
    started again.
    """
    if force:
        _end_task(connection, container)
    elif states.of(container, states.task_of(connection, container.id)).alive:
        raise FailedPrecondition(
            f'container "{names.of(container)}" is running: stop it first, or give --force'
        )
    else:
        delete_task(connection, container.id)
    from orlop.client import log_files

    with suppress(NotFound):  # the daemon removes it as well, if it was run with --rm
        connection.containers.delete(containers_pb2.DeleteContainerRequest(id=container.id))
    if container.snapshot_key:
        remove_snapshot(connection, container.snapshotter, container.snapshot_key)
    log_files.remove(connection, container)
    if any(label.startswith(CHECKPOINT_LABEL) for label in container.labels):
        from orlop.client import checkpoints

        checkpoints.remove_all(connection, container)


def _end_task(connection: Connection, container: containers_pb2.Container) -> None:
    """Kill a task and delete it, or else the one that was started in its place meanwhile.

    Either is not to be started again, whatever who started the second one has said.
    """
    for last in (False, True):
        # The record may be gone, or the database read-only: it is killed all the same.
        with suppress(NotFound, Unavailable):
            restarts.expect(connection, container, running=False)
        _kill(connection, container.id)
        try:
            delete_task(connection, container.id)
        except OrlopError:
            task = states.task_of(connection, container.id)
            if task is None:
                return
            if last or task.status == STOPPED:
                raise
        else:
            return


def _kill(connection: Connection, container: str) -> None:
    task = states.task_of(connection, container)
    if task is None or task.status == STOPPED:
        return
    with suppress(NotFound):
        send_signal(connection, container, signal.SIGKILL, everything=True)
        wait(connection, container)


def remove_snapshot(connection: Connection, snapshotter: str, key: str) -> None:
    try:
        connection.snapshots.remove(
            snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        )
    except NotFound:
        return


def spec_of(container: containers_pb2.Container) -> dict[str, Any]:
    """The runtime spec in a container record, decoded."""
    spec: dict[str, Any] = json.loads(container.spec.value)
    return spec


def failure_status(error: OrlopError) -> int:
    """The exit status for a process that could not be run: 127 not found, 126 not executable."""
    text = error.message
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text else 125
