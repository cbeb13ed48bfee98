"""Containers made from images: a snapshot, and the record with the runtime spec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.client import containers, leases
from orlop.client.connection import Connection
from orlop.client.images import ImageView
from orlop.client.rootfs import read_texts, to_mount
from orlop.oci import spec as runtime_spec
from orlop.oci import users
from orlop.sys.idmap import IdMapping
from orlop.sys.process import bounding_capabilities, in_user_namespace
from orlop.wire.services import containers_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Mount as WireMount


class Wanted(NamedTuple):
    """A container as a user asks for it; None leaves the image's own setting.

    `user` is as in an image config, `snapshot_labels` are for the snapshotter; `spec` holds what
    does not depend on the image.
    """

    image: ImageView
    id: str
    command: Sequence[str] = ()
    entrypoint: Sequence[str] | None = None
    env: Mapping[str, str] = {}
    cwd: str | None = None
    user: str | None = None
    groups: Sequence[str] = ()
    cdi_devices: Sequence[str] = ()
    cdi_folders: Sequence[str] = ()
    cgroup_parent: str = ""
    labels: Mapping[str, str] = {}
    snapshot_labels: Mapping[str, str] = {}
    runtime: str = containers.RUNTIME
    spec: runtime_spec.ContainerSpec = runtime_spec.ContainerSpec(args=())


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
            containers.remove_snapshot(connection, wanted.image.snapshotter, wanted.id)
            raise
    return record, mounts


def _prepare(connection: Connection, wanted: Wanted) -> list[WireMount]:
    image = wanted.image
    parent, labels = image.chain_id, dict[str, str]()
    if wanted.spec.uid_map:
        from orlop.client import remapped

        parent, labels = remapped.parent_and_labels(
            connection, image.snapshotter, parent, wanted.spec
        )
    answer = connection.snapshots.prepare(
        snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=image.snapshotter,
            key=wanted.id,
            parent=parent,
            labels={**labels, **wanted.snapshot_labels},
        )
    )
    return list(answer.mounts)


def _create_record(
    connection: Connection, wanted: Wanted, mounts: list[WireMount]
) -> containers_pb2.Container:
    config = wanted.image.config
    labels = dict(wanted.labels)
    if config.get("StopSignal"):
        labels.setdefault(containers.STOP_SIGNAL_LABEL, config["StopSignal"])
    complete = _complete(connection, wanted, mounts)
    spec = runtime_spec.build(complete, available=grantable_capabilities())
    if wanted.cdi_devices:
        from orlop.oci import cdi

        cdi.inject(spec, wanted.cdi_devices, wanted.cdi_folders or cdi.DEFAULT_FOLDERS)
    answer = connection.containers.create(
        containers_pb2.CreateContainerRequest(
            container=containers_pb2.Container(
                id=wanted.id,
                image=wanted.image.name,
                labels=labels,
                runtime=containers_pb2.Container.Runtime(name=wanted.runtime),
                spec=AnyMessage(type_url=containers.SPEC_TYPE, value=json.dumps(spec).encode()),
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
    plain = [m._replace(options=tuple(IdMapping.of(m.options)[1])) for m in map(to_mount, mounts)]
    texts = read_texts(plain, ["/etc/passwd", "/etc/group"])
    name = wanted.user if wanted.user is not None else config.get("User", "")
    user = users.resolve(name, texts["/etc/passwd"], texts["/etc/group"])
    if wanted.groups:
        user = users.with_groups(user, wanted.groups, texts["/etc/group"])
    parent = wanted.cgroup_parent.strip("/") or connection.namespace
    return wanted.spec._replace(
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


def binds_of(container: containers_pb2.Container, *, read_only: bool) -> list[runtime_spec.Bind]:
    """The host paths that a container shows, all of them `read_only` if so."""
    return [
        runtime_spec.Bind(
            mount["source"],
            mount["destination"],
            read_only or "ro" in mount["options"],
            recursive="rbind" in mount["options"],
        )
        for mount in containers.spec_of(container).get("mounts") or ()
        if {"bind", "rbind"} & set(mount.get("options") or ())
        and mount["destination"] != runtime_spec.INIT
    ]
