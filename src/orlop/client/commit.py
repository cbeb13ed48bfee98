"""Make an image of a container: its image, one more layer, and the settings that it runs with."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from orlop.client import blobs, containers, images, leases, networks, snapshots
from orlop.client.connection import Connection
from orlop.errors import AlreadyExists, FailedPrecondition, NotFound, OrlopError
from orlop.oci import chain, instructions, mediatypes
from orlop.oci.digest import Digest
from orlop.oci.spec import DEFAULT_PATH, INIT
from orlop.tar.changes import MOUNT_POINTS
from orlop.wire.services import containers_pb2, diff_pb2, images_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import RUNNING
from orlop.wire.types_pb2 import Descriptor

_UNCOMPRESSED = "containerd.io/uncompressed"
_REF = "containerd.io/gc.ref.content"
# Labels that say how a container is kept, not what it is.
_OWN_LABELS = ("containerd.io/", "io.containerd.", "orlop/", "nerdctl/")
# Of two blocks of zeros: a tar without entries (of every size the first 1,024 bytes would do).
_EMPTY_TAR = str(Digest.of(bytes(1024)))


def commit(
    connection: Connection,
    container: containers_pb2.Container,
    name: str = "",
    *,
    author: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    pause: bool = True,
) -> images.Image:
    """Make the image `name` of what a container's files and settings are now.

    Without a name it is called `commit@` and its digest. `changes` are instructions of a
    Dockerfile (see `orlop.oci.instructions`). With `pause` a running container stands still while
    its files are read. Raises FailedPrecondition for a container without a snapshot or without an
    image, or whose image is another by now.
    """
    config = _base_config(connection, container)
    settings = config["config"] = _settings(container, config.get("config") or {})
    created_by = " ".join(settings.get("Cmd") or ())
    instructions.change(settings, changes)
    with leases.held(connection) as held:
        target = images.get(held, container.image).target
        leases.hold(held, "content", target.digest)
        base = images.manifest(held, target)
        parent = snapshots.parent_of(held, container)
        _check_base(container, config, parent)
        with _standing_still(held, container.id, pause=pause):
            layer, diff_id = _layer(held, container, parent, base)
        _extend(config, diff_id, created_by, author, message)
        manifest = _write(held, base, config, layer if diff_id != _EMPTY_TAR else None)
        return _name(held, name, manifest)


def _base_config(connection: Connection, container: containers_pb2.Container) -> dict[str, Any]:
    if not container.image:
        raise FailedPrecondition(f'container "{container.id}" was not made from an image')
    try:
        image = images.get(connection, container.image)
    except NotFound:
        raise FailedPrecondition(
            f'image "{container.image}" of container "{container.id}" is not here any more: '
            "pull it, or tag it so again"
        ) from None
    return copy.deepcopy(images.config(connection, image))


def _check_base(
    container: containers_pb2.Container, config: Mapping[str, Any], parent: str
) -> None:
    diff_ids = [Digest.parse(text) for text in config["rootfs"]["diff_ids"]]
    chains = chain.chain_ids(diff_ids)
    if parent != (str(chains[-1]) if chains else ""):
        raise FailedPrecondition(
            f'container "{container.id}" was made from another image than "{container.image}" '
            "is now: tag that one so again"
        )


def _settings(container: containers_pb2.Container, image: Mapping[str, Any]) -> dict[str, Any]:
    """The image's settings, with what the container was given otherwise."""
    settings = dict(image)
    process = containers.spec_of(container).get("process") or {}
    args, entrypoint = list(process.get("args") or ()), list(image.get("Entrypoint") or ())
    if args[:2] == [INIT, "--"]:  # which is the host's, and not in the image
        args = args[2:]
    if args != [*entrypoint, *(image.get("Cmd") or ())]:
        if args[: len(entrypoint)] != entrypoint:
            settings.pop("Entrypoint", None)
            entrypoint = []
        settings["Cmd"] = args[len(entrypoint) :]
    settings["Env"] = _env(process.get("env") or (), image.get("Env") or ())
    if process.get("cwd", "/") != (image.get("WorkingDir") or "/"):
        settings["WorkingDir"] = process["cwd"]
    user = process.get("user") or {}
    if not image.get("User") and (user.get("uid") or user.get("gid")):
        settings["User"] = f"{user.get('uid', 0)}:{user.get('gid', 0)}"
    labels = {k: v for k, v in container.labels.items() if not k.startswith(_OWN_LABELS)}
    if labels:
        settings["Labels"] = {**(image.get("Labels") or {}), **labels}
    if stop_signal := container.labels.get(containers.STOP_SIGNAL_LABEL):
        settings["StopSignal"] = stop_signal
    return settings


def _env(process: Sequence[str], image: Sequence[str]) -> list[str]:
    """The container's variables, without those that every container gets unasked."""
    unasked = {"HOSTNAME", "HOME", "TERM"} - {entry.partition("=")[0] for entry in image}
    return [
        entry
        for entry in process
        if entry.partition("=")[0] not in unasked
        and (entry != f"PATH={DEFAULT_PATH}" or entry in image)
    ]


@contextmanager
def _standing_still(connection: Connection, container: str, *, pause: bool) -> Iterator[None]:
    """With `pause`, a container that runs is paused meanwhile."""
    try:
        request = tasks_pb2.GetRequest(container_id=container)
        running = pause and connection.tasks.get(request).process.status == RUNNING
    except NotFound:
        running = False
    if not running:
        yield
        return
    paused = False
    try:
        connection.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=container))
        paused = True
        yield
    finally:  # also when it was broken off before the answer to the first had come
        try:
            connection.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=container))
        except OrlopError:
            if paused:
                raise


def _layer(
    connection: Connection,
    container: containers_pb2.Container,
    parent: str,
    base: Mapping[str, Any],
) -> tuple[Descriptor, str]:
    """The layer of the container's changes, and the digest of its plain tar."""
    upper = snapshots.mounts_of(connection, container)
    with snapshots.view_of(connection, container.snapshotter, parent) as lower:
        request = diff_pb2.DiffRequest(
            left=lower,
            right=upper,
            media_type=_layer_type(base.get("mediaType", "")),
            labels={MOUNT_POINTS: " ".join(networks.mount_points(container))},
        )
        layer = connection.diff.diff(request).diff
    labels = blobs.labels_of(connection, layer.digest)
    return layer, labels[_UNCOMPRESSED]


def _layer_type(manifest_type: str) -> str:
    if manifest_type == mediatypes.DOCKER_MANIFEST:
        return mediatypes.DOCKER_LAYER + ".gzip"
    return mediatypes.OCI_LAYER + "+gzip"


def _extend(
    config: dict[str, Any], diff_id: str, created_by: str, author: str, message: str
) -> None:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    step = {"created": now, "created_by": created_by, "author": author, "comment": message}
    if diff_id == _EMPTY_TAR:
        step["empty_layer"] = True  # type: ignore[assignment]
    else:
        rootfs = config["rootfs"]
        config["rootfs"] = {**rootfs, "diff_ids": [*rootfs["diff_ids"], diff_id]}
    config["history"] = [
        *(config.get("history") or ()),
        {key: value for key, value in step.items() if value},
    ]
    config["created"] = now
    if author:
        config["author"] = author
    for stale in ("id", "parent", "container", "container_config"):
        config.pop(stale, None)


def _write(
    connection: Connection,
    base: Mapping[str, Any],
    config: Mapping[str, Any],
    layer: Descriptor | None,
) -> Descriptor:
    """Store config and manifest; the manifest's descriptor."""
    docker = base.get("mediaType") == mediatypes.DOCKER_MANIFEST
    made = blobs.write(
        connection,
        _encode(config),
        mediatypes.DOCKER_CONFIG if docker else mediatypes.OCI_CONFIG,
    )
    layers = list(base["layers"])
    if layer is not None:
        layers.append(_json(layer))
    manifest_type = mediatypes.DOCKER_MANIFEST if docker else mediatypes.OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": _json(made),
        "layers": layers,
    }
    labels = {f"{_REF}.config": made.digest}
    labels |= {f"{_REF}.l.{number}": each["digest"] for number, each in enumerate(layers)}
    return blobs.write(connection, _encode(document), manifest_type, labels)


def _json(found: Descriptor) -> dict[str, Any]:
    return {"mediaType": found.media_type, "digest": found.digest, "size": found.size}


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _name(connection: Connection, name: str, manifest: Descriptor) -> images.Image:
    full = images.full_name(name or f"commit@{manifest.digest}")
    image = images_pb2.Image(name=full, target=manifest)
    try:
        made = connection.images.create(images_pb2.CreateImageRequest(image=image))
    except AlreadyExists:
        made = connection.images.update(images_pb2.UpdateImageRequest(image=image))
    found: images.Image = made.image
    return found
