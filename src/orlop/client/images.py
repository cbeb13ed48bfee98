"""Images as a client sees them: names, configs, and the snapshot that a container starts from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from orlop.client import leases
from orlop.client.connection import Connection
from orlop.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from orlop.oci import chain, mediatypes, platform_rules, reference
from orlop.oci.digest import Digest
from orlop.wire.services import content_pb2, images_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Descriptor

Image = images_pb2.Image

_RUNTIME = "io.containerd.runtime.v2", "task"
_DOCUMENT_MAX = 4 << 20
# The last is what early registries made of it.
_CONFIGS = {*mediatypes.CONFIGS, "application/octet-stream"}


class ImageView(NamedTuple):
    """One platform of an image, ready to be run: its config and the snapshot of its layers.

    `config` is the `config` object of the image config (OCI image spec, config.md).
    """

    name: str
    config: Mapping[str, Any]
    chain_id: str
    snapshotter: str


def full_name(name: str) -> str:
    """The full reference of a short name: `busybox` is `docker.io/library/busybox:latest`."""
    return str(reference.normalize(name))


def get(connection: Connection, name: str) -> Image:
    """The image record; raises NotFound."""
    found: Image = connection.images.get(images_pb2.GetImageRequest(name=name)).image
    return found


def find(connection: Connection, name: str) -> Image | None:
    """The image record, if there is one."""
    try:
        return get(connection, name)
    except NotFound:
        return None


def find_local(connection: Connection, name: str) -> Image | None:
    """The image that a user means by `name`, if it is here.

    That is the one of the full reference; or the one called `name` itself, where only that exists:
    other clients may call an image `box:1`. Raises InvalidArgument for what can be neither.
    """
    try:
        full = full_name(name)
    except InvalidArgument:
        found = find(connection, name)
        if found is None:
            raise
        return found
    return find(connection, full) or (None if name == full else find(connection, name))


def local_name(connection: Connection, name: str) -> str:
    """What the image that a user means by `name` is called here; see `find_local`."""
    found = find_local(connection, name)
    return full_name(name) if found is None else found.name


def list_all(connection: Connection) -> list[Image]:
    return list(connection.images.list(images_pb2.ListImagesRequest()).images)


def remove(connection: Connection, name: str) -> None:
    connection.images.delete(images_pb2.DeleteImageRequest(name=name, sync=True))


def size(connection: Connection, image: Image) -> int | None:
    """Bytes of the layers and config as stored, or None when its manifest is not here."""
    try:
        found = manifest(connection, image.target)
    except NotFound:
        return None
    return int(sum(part["size"] for part in [found["config"], *found["layers"]]))


def config(connection: Connection, image: Image) -> dict[str, Any]:
    """The image config document of this machine's platform."""
    return _read_json(connection, manifest(connection, image.target)["config"]["digest"])


def view(connection: Connection, image: Image, *, snapshotter: str = "") -> ImageView:
    """An image for this machine's platform, unpacked if it was not.

    It is the daemon's own snapshotter where none is named.
    Raises NotFound for one without this platform or some of its content, and
    FailedPrecondition for something else than an image.
    """
    found = manifest(connection, image.target)
    if found["config"]["mediaType"] not in _CONFIGS:
        kind = found.get("artifactType") or found["config"]["mediaType"]
        raise FailedPrecondition(f'"{image.name}" is no image that can run: it is a "{kind}"')
    document = _read_json(connection, found["config"]["digest"])
    diff_ids = [Digest.parse(text) for text in document["rootfs"]["diff_ids"]]
    where = snapshotter or connection.exports(*_RUNTIME).get("snapshotter", "overlayfs")
    chains = [str(link) for link in chain.chain_ids(diff_ids)]
    if chains and not _has_snapshot(connection, where, chains[-1]):
        with leases.held(connection) as held:
            _unpack(held, where, found["layers"], diff_ids, chains)
            _hold_by(held, found["config"]["digest"], where, chains[-1])
    return ImageView(image.name, document.get("config") or {}, chains[-1] if chains else "", where)


def manifest(connection: Connection, target: Descriptor) -> dict[str, Any]:
    """The manifest of this machine's platform that an image's target leads to."""
    document = _read_json(connection, target.digest)
    if target.media_type not in mediatypes.INDEXES:
        return document
    wanted = platform_rules.here()
    offers = (
        (_platform(entry.get("platform")), entry["digest"]) for entry in document["manifests"]
    )
    best = platform_rules.best(wanted, offers)
    if best is None:
        raise NotFound(f"platform {platform_rules.text(wanted)} in image index {target.digest}")
    return _read_json(connection, best)


def _platform(entry: dict[str, Any] | None) -> platform_rules.Members | None:
    if entry is None:
        return None
    return platform_rules.Members(
        entry.get("architecture", ""), entry.get("os", ""), entry.get("variant", "")
    )


def document(connection: Connection, digest: str) -> bytes:
    """A manifest, index or config as it is stored; NotFound, or DataLoss when it is too long."""
    data = b""
    for part in connection.content.read(content_pb2.ReadContentRequest(digest=digest)):
        data += part.data
        if len(data) > _DOCUMENT_MAX:
            raise DataLoss(f"document {digest} is longer than {_DOCUMENT_MAX} bytes")
    return data


def _read_json(connection: Connection, digest: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(document(connection, digest))
    except ValueError as error:
        raise DataLoss(f"document {digest} is not JSON: {error}") from None
    return found


def _has_snapshot(connection: Connection, snapshotter: str, key: str) -> bool:
    try:
        connection.snapshots.stat(
            snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        )
    except NotFound:
        return False
    return True


def _hold_snapshot(connection: Connection, snapshotter: str, key: str) -> bool:
    """Have the connection's lease hold a snapshot; False if there is none."""
    if not _has_snapshot(connection, snapshotter, key):
        return False
    leases.hold(connection, f"snapshots/{snapshotter}", key)
    return _has_snapshot(connection, snapshotter, key)  # it may have gone before it was held


def _unpack(
    connection: Connection,
    snapshotter: str,
    layers: list[dict[str, Any]],
    diff_ids: list[Digest],
    chains: list[str],
) -> None:
    """Apply the layers one on the other, skipping those that are there and may be held."""
    parent = ""
    for layer, diff_id, name in zip(layers, diff_ids, chains, strict=True):
        if not _hold_snapshot(connection, snapshotter, name):
            _apply(connection, snapshotter, layer, str(diff_id), name, parent)
        parent = name


def _hold_by(connection: Connection, config: str, snapshotter: str, chain_id: str) -> None:
    """The config keeps the snapshot of the layers from now on."""
    key = f"containerd.io/gc.ref.snapshot.{snapshotter}"
    request = content_pb2.UpdateRequest(info={"digest": config, "labels": {key: chain_id}})
    request.update_mask.paths.append(f"labels.{key}")
    connection.content.update(request)


def _apply(
    connection: Connection,
    snapshotter: str,
    layer: dict[str, Any],
    diff_id: str,
    name: str,
    parent: str,
) -> None:
    from orlop.wire.services import diff_pb2

    key = f"extract-{os.urandom(6).hex()} {name}"
    mounts = connection.snapshots.prepare(
        snapshots_pb2.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent)
    ).mounts
    try:
        descriptor = Descriptor(
            media_type=layer["mediaType"], digest=layer["digest"], size=layer["size"]
        )
        applied = connection.diff.apply(diff_pb2.ApplyRequest(diff=descriptor, mounts=mounts))
        if applied.applied.digest != diff_id:
            raise DataLoss(
                f"layer {layer['digest']} unpacks to {applied.applied.digest}, "
                f"but the image config says {diff_id}"
            )
        connection.snapshots.commit(
            snapshots_pb2.CommitSnapshotRequest(snapshotter=snapshotter, name=name, key=key)
        )
    except AlreadyExists:
        _drop(connection, snapshotter, key)  # somebody else was faster: the same content
    except BaseException:
        _drop(connection, snapshotter, key)
        raise


def _drop(connection: Connection, snapshotter: str, key: str) -> None:
    connection.snapshots.remove(
        snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
    )
