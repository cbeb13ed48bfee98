"""Containers made from images: create, remove, stop, and what a list shows of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from orlop.client import checkpoints, leases, log_files, names, remapped, states
from orlop.client.checkpoints import Origin
from orlop.client.connection import Connection
from orlop.client.images import ImageView
from orlop.client.rootfs import read_texts
from orlop.client.stdio import Streams
from orlop.errors import DeadlineExceeded, FailedPrecondition, NotFound, OrlopError
from orlop.oci import spec as runtime_spec
from orlop.oci import users
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import Mount
from orlop.sys.process import bounding_capabilities, in_user_namespace
from orlop.wire.services import containers_pb2, snapshots_pb2, tasks_pb2
from orlop.wire.types_pb2 import Mount as WireMount

RUNTIME = "io.containerd.runc.v2"
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
STOP_SIGNAL_LABEL = "io.containerd.image.config.stop-signal"
STOP_TIMEOUT_LABEL = "orlop/stop-timeout"
AUTO_REMOVE_LABEL = "orlop/auto-remove"

_STOP_GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A container as a user asks for it; None leaves the image's own setting.

    `user` is as in an image config; `spec` holds what does not depend on the image.
    """

    image: ImageView
    id: str
    command: Sequence[str] = ()
    entrypoint: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    groups: Sequence[str] = ()
    cdi_devices: Sequence[str] = ()
    cdi_folders: Sequence[str] = ()
    cgroup_parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    runtime: str = RUNTIME
    spec: runtime_spec.ContainerSpec = field(
        default_factory=lambda: runtime_spec.ContainerSpec(args=())
    )


def create(
    connection: Connection, wanted: Wanted
) -> tuple[containers_pb2.Container, list[WireMount]]:
    """Create the container's snapshot and record; the record, and the mounts of its root.

    Everything is under a lease until the record holds it, and removed again on failure.
    """
    with leases.held(connection) as held:
        mounts = _prepare(held, wanted)
        try:
            record = _create_record(held, wanted, mounts)
        except BaseException:
            remove_snapshot(connection, wanted.image.snapshotter, wanted.id)
            raise
    return record, mounts


def _prepare(connection: Connection, wanted: Wanted) -> list[WireMount]:
    image = wanted.image
    parent, labels = remapped.parent_and_labels(
        connection, image.snapshotter, image.chain_id, wanted.spec
    )
    answer = connection.snapshots.prepare(
        snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=image.snapshotter, key=wanted.id, parent=parent, labels=labels
        )
    )
    return list(answer.mounts)


def _create_record(
    connection: Connection, wanted: Wanted, mounts: list[WireMount]
) -> containers_pb2.Container:
    config = wanted.image.config
    labels = dict(wanted.labels)
    if config.get("StopSignal"):
        labels.setdefault(STOP_SIGNAL_LABEL, config["StopSignal"])
    complete = _complete(connection, wanted, mounts)
    spec = runtime_spec.build(complete, available=grantable_capabilities())
    if wanted.cdi_devices:
        from orlop.oci import cdi  # noqa: PLC0415 - for those who have such devices only

        cdi.inject(spec, wanted.cdi_devices, wanted.cdi_folders or cdi.DEFAULT_FOLDERS)
    answer = connection.containers.create(
        containers_pb2.CreateContainerRequest(
            container=containers_pb2.Container(
                id=wanted.id,
                image=wanted.image.name,
                labels=labels,
                runtime=containers_pb2.Container.Runtime(name=wanted.runtime),
                spec=AnyMessage(type_url=SPEC_TYPE, value=json.dumps(spec).encode()),
                snapshotter=wanted.image.snapshotter,
                snapshot_key=wanted.id,
            )
        )
    )
    record: containers_pb2.Container = answer.container
    return record


def _complete(
    connection: Connection, wanted: Wanted, mounts: list[WireMount]
) -> runtime_spec.ContainerSpec:
    """What the user asked for, filled up from the image (OCI image spec, conversion.md)."""
    config = wanted.image.config
    plain = [replace(m, options=tuple(IdMapping.of(m.options)[1])) for m in map(to_mount, mounts)]
    texts = read_texts(plain, ["/etc/passwd", "/etc/group"])
    name = wanted.user if wanted.user is not None else config.get("User", "")
    user = users.resolve(name, texts["/etc/passwd"], texts["/etc/group"])
    if wanted.groups:
        user = users.with_groups(user, wanted.groups, texts["/etc/group"])
    parent = wanted.cgroup_parent.strip("/") or connection.namespace
    return replace(
        wanted.spec,
        args=_command(wanted, config),
        env={**_pairs(config.get("Env") or ()), **wanted.env},
        cwd=wanted.cwd or config.get("WorkingDir") or "/",
        user=user,
        rootless=in_user_namespace(),
        cgroups_path=f"/{parent}/{wanted.id}",
    )


def _command(wanted: Wanted, config: Mapping[str, Any]) -> list[str]:
    """An entrypoint of the user's own also drops the image's command."""
    if wanted.entrypoint is not None:
        return [*wanted.entrypoint, *wanted.command]
    entrypoint = config.get("Entrypoint") or []
    return [*entrypoint, *(wanted.command or config.get("Cmd") or [])]


def grantable_capabilities() -> list[str]:
    """What a container can be given: the daemon runs as we do, and is bound as we are."""
    names = runtime_spec.ALL_CAPABILITIES
    return [names[number] for number in bounding_capabilities() if number < len(names)]


def _pairs(env: Sequence[str]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in env)


def to_mount(mount: WireMount) -> Mount:
    return Mount(mount.type, mount.source, mount.target, tuple(mount.options))


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
    labels = container.labels
    name = signal_name or labels.get(STOP_SIGNAL_LABEL, "SIGTERM")
    if grace is None:
        grace = _seconds(labels.get(STOP_TIMEOUT_LABEL, ""))
    send_signal(connection, container.id, signal_number(name))
    try:
        wait(connection, container.id, timeout=grace if grace >= 0 else None)
    except DeadlineExceeded:
        send_signal(connection, container.id, signal.SIGKILL)
        wait(connection, container.id)


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
    """`9`, `KILL` and `SIGKILL` are one, also `SIGRTMIN+3`; NotFound for an unknown one."""
    text = name.upper().removeprefix("SIG")
    if text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    base, plus, offset = text.partition("+")
    try:
        number = int(signal.Signals[f"SIG{base}"])
    except KeyError:
        raise NotFound(f'signal "{name}"') from None
    return number + (int(offset) if plus and offset.isdecimal() else 0)


def get(connection: Connection, container: str) -> containers_pb2.Container:
    """The record of the container that `container` names; see `names.find`."""
    return names.find(connection, container)


def list_records(connection: Connection) -> list[containers_pb2.Container]:
    answer = connection.containers.list(containers_pb2.ListContainersRequest())
    return list(answer.containers)


def remove(connection: Connection, container: containers_pb2.Container, *, force: bool) -> None:
    """Remove task, record, snapshot, log and checkpoints of a container.

    Raises FailedPrecondition when it still runs, unless `force` kills it first.
    """
    if force:
        _kill(connection, container.id)
    elif states.of(container, states.task_of(connection, container.id)).alive:
        raise FailedPrecondition(
            f'container "{names.of(container)}" is running: stop it first, or give --force'
        )
    delete_task(connection, container.id)
    connection.containers.delete(containers_pb2.DeleteContainerRequest(id=container.id))
    if container.snapshot_key:
        remove_snapshot(connection, container.snapshotter, container.snapshot_key)
    log_files.remove(connection, container)
    checkpoints.remove_all(connection, container)


def remove_when_ended(connection: Connection, container: containers_pb2.Container) -> None:
    """Have the daemon remove the container when it ends."""
    changed = containers_pb2.Container(id=container.id, labels={AUTO_REMOVE_LABEL: "true"})
    mask = FieldMask(paths=[f"labels.{AUTO_REMOVE_LABEL}"])
    request = containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask)
    connection.containers.update(request)
    task = states.task_of(connection, container.id)
    if task is not None and not states.of(container, task).alive:
        with suppress(NotFound):  # the daemon was faster after all
            remove(connection, container, force=False)


def _kill(connection: Connection, container: str) -> None:
    try:
        send_signal(connection, container, signal.SIGKILL, everything=True)
        wait(connection, container)
    except NotFound:
        return


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


def binds_of(container: containers_pb2.Container, *, read_only: bool) -> list[runtime_spec.Bind]:
    """The host paths that a container shows, all of them `read_only` if so."""
    return [
        runtime_spec.Bind(
            mount["source"],
            mount["destination"],
            read_only or "ro" in mount["options"],
            recursive="rbind" in mount["options"],
        )
        for mount in spec_of(container).get("mounts") or ()
        if {"bind", "rbind"} & set(mount.get("options") or ())
        and mount["destination"] != runtime_spec.INIT
    ]


def failure_status(error: OrlopError) -> int:
    """The exit status for a process that could not be run: 127 not found, 126 not executable."""
    text = error.message
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text else 125
