"""Image records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from msgspec.structs import replace

from orlop.errors import AlreadyExists, InvalidArgument, NotFound
from orlop.events import Publisher
from orlop.images import listing
from orlop.images.model import Image
from orlop.metadata import Database, Transaction, clock, fieldmask, filters, labels
from orlop.metadata.database import Row
from orlop.metadata.fieldmask import Mask
from orlop.metadata.filters import Lookup
from orlop.metadata.references import attach_to_lease, detach_from_lease, ensure_namespace
from orlop.metadata.sweeping import Dead, Key
from orlop.oci.descriptor import Descriptor
from orlop.oci.digest import Digest
from orlop.wire.services.images_pb2 import ImageCreate, ImageDelete, ImageUpdate

_KIND = "image"
_RESOURCE = "images"
_EXPIRES = "containerd.io/gc.expire"
_NO_ANNOTATIONS = "{}"
_COLUMNS = "name, media_type, digest, size, annotations, created_at, updated_at"


class ImageStore:
    """The images of every namespace; changes are announced under `/images/`.

    An image with an expiry label is added to the lease of the call, if it has one: all other
    images stay until they are deleted, and need no lease.
    """

    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db = db
        self._publisher = publisher

    def get(self, namespace: str, name: str) -> Image:
        """One image; raises NotFound."""
        with self._db.read() as tx:
            return _get(tx, namespace, name)

    def beginning(self, namespace: str, prefix: str) -> list[Image]:
        """The images whose names begin with `prefix`, by name; without their labels."""
        return self._unlabelled(
            "namespace = ? AND name >= ? AND name < ?", (namespace, prefix, prefix + chr(0x10FFFF))
        )

    def containing(self, namespace: str, text: str) -> list[Image]:
        """The images with `text` in their names, by name; without their labels.

        A filter expression would do as well, but looks at every image one by one.
        """
        return self._unlabelled("namespace = ? AND instr(name, ?)", (namespace, text))

    def _unlabelled(self, condition: str, params: tuple[str, ...]) -> list[Image]:
        with self._db.read() as tx:
            rows = tx.all(f"SELECT {_COLUMNS} FROM images WHERE {condition} ORDER BY name", params)
        return [_image(row, {}) for row in rows]

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Image]:
        """The images that any of the filters `wanted` match, by name.

        Filters see `name`, `target.digest`, `target.mediatype`, `labels` and `annotations`.
        """
        chosen = filters.parse(wanted)
        with self._db.read() as tx:
            rows = tx.all(
                f"SELECT {_COLUMNS} FROM images WHERE namespace = ? ORDER BY name", (namespace,)
            )
            all_labels = labels.get_all(tx, _KIND, namespace)
        images = [_image(row, all_labels.get(row[0], {})) for row in rows]
        if chosen.everything:
            return images
        return [image for image in images if chosen.matches(_lookup(image))]

    def listing(self, namespace: str) -> Sequence[bytes]:
        """All images, by name, as the `images` of a ListImagesResponse."""
        with self._db.read() as tx:
            return listing.images(tx, _KIND, namespace)

    def create(self, namespace: str, image: Image, *, lease: str = "", at: int = 0) -> Image:
        """Add an image and return it as kept, with both times set to `at` (0 = now).

        Raises AlreadyExists, InvalidArgument for a bad name, target or label, and NotFound for a
        lease that is not there.
        """
        _validate(image)
        at = at or clock.now()
        image = replace(_without_empty(image), created_at=at, updated_at=at)
        with self._db.write() as tx:
            if _row(tx, namespace, image.name) is not None:
                raise AlreadyExists(f'image "{image.name}"')
            ensure_namespace(tx, namespace)
            _write(tx, namespace, image, lease)
            self._announce(
                tx, namespace, "create", ImageCreate(name=image.name, labels=image.labels)
            )
        return image

    def update(
        self,
        namespace: str,
        image: Image,
        mask: FieldMask | None = None,
        *,
        lease: str = "",
        at: int = 0,
    ) -> Image:
        """Replace what `mask` names: labels, target, or the target's annotations.

        Raises NotFound and InvalidArgument.
        """
        named = fieldmask.paths(
            mask or FieldMask(),
            fields=("labels", "target", "annotations"),
            maps=("labels", "annotations"),
        )
        with self._db.write() as tx:
            updated = _updated(_get(tx, namespace, image.name), image, named)
            updated = replace(updated, updated_at=at or clock.now())
            _validate(updated)
            _write(tx, namespace, updated, lease)
            self._announce(
                tx, namespace, "update", ImageUpdate(name=updated.name, labels=updated.labels)
            )
        return updated

    def put(self, namespace: str, image: Image) -> Image:
        """Add an image, or replace the one of its name; raises InvalidArgument."""
        while True:
            try:
                return self.create(namespace, image)
            except AlreadyExists:
                with suppress(NotFound):  # gone again: try once more
                    return self.update(namespace, image)

    def delete(self, namespace: str, name: str, *, target: str = "", lease: str = "") -> None:
        """Remove the name; what it stood for stays in the content store.

        With a digest as `target`, only if the image still has it. Raises NotFound.
        """
        with self._db.write() as tx:
            image = _get(tx, namespace, name)
            if target and image.target.digest != target:
                raise NotFound(f'image "{name}" with target "{target}"')
            self._remove(tx, namespace, name)
            if lease:
                detach_from_lease(tx, namespace, lease, _RESOURCE, name)

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Remove the images whose time is over and that nothing keeps; how many."""
        removed = 0
        with self._db.write() as tx:
            for namespace, name in keys:
                if _row(tx, namespace, name) is not None and dead(tx, namespace, name):
                    self._remove(tx, namespace, name)
                    removed += 1
        return removed

    def _remove(self, tx: Transaction, namespace: str, name: str) -> None:
        tx.execute("DELETE FROM images WHERE namespace = ? AND name = ?", (namespace, name))
        labels.remove(tx, _KIND, namespace, name)
        self._announce(tx, namespace, "delete", ImageDelete(name=name))

    def _announce(self, tx: Transaction, namespace: str, what: str, event: Message) -> None:
        tx.after_commit(partial(self._publisher.publish, namespace, f"/images/{what}", event))


def _validate(image: Image) -> None:
    if not image.name:
        raise InvalidArgument("image has no name")
    labels.validate(image.labels)
    target = image.target
    try:
        Digest.parse(target.digest)
    except InvalidArgument as error:
        raise InvalidArgument(f'image "{image.name}": target: {error.message}') from None
    if target.size <= 0:
        raise InvalidArgument(f'image "{image.name}": target has size {target.size}')
    if not target.media_type:
        raise InvalidArgument(f'image "{image.name}": target has no media type')


def _updated(old: Image, new: Image, mask: Mask) -> Image:
    target = new.target if mask.has("target") else old.target
    if not mask.has("target"):
        annotations = mask.merge("annotations", target.annotations, new.target.annotations)
        target = _annotated(target, annotations)
    return _without_empty(
        replace(old, target=target, labels=mask.merge("labels", old.labels, new.labels))
    )


def _without_empty(image: Image) -> Image:
    """The image as it is kept: a label or annotation with an empty value is none."""
    return replace(
        image,
        labels=_filled(image.labels),
        target=_annotated(image.target, _filled(image.target.annotations)),
    )


def _annotated(target: Descriptor, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(
        media_type=target.media_type,
        digest=target.digest,
        size=target.size,
        annotations=annotations,
    )


def _filled(pairs: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in pairs.items() if value}


def _lookup(image: Image) -> Lookup:
    fields = {
        "name": image.name,
        "target.digest": image.target.digest,
        "target.mediatype": image.target.media_type,
    }
    return filters.record(fields, labels=image.labels, annotations=image.target.annotations)


def _row(tx: Transaction, namespace: str, name: str) -> Row | None:
    return tx.one(
        f"SELECT {_COLUMNS} FROM images WHERE namespace = ? AND name = ?", (namespace, name)
    )


def _get(tx: Transaction, namespace: str, name: str) -> Image:
    row = _row(tx, namespace, name)
    if row is None:
        raise NotFound(f'image "{name}"')
    return _image(row, labels.get(tx, _KIND, namespace, name))


def _image(row: Row, own_labels: Mapping[str, str]) -> Image:
    # By position: lists are long, and to look columns up by name takes a third of the time.
    name, media_type, digest, size, annotations, created_at, updated_at = row
    return Image(
        name=name,
        target=Descriptor(
            media_type=media_type,
            digest=digest,
            size=size,
            annotations={} if annotations == _NO_ANNOTATIONS else json.loads(annotations),
        ),
        labels=own_labels,
        created_at=created_at,
        updated_at=updated_at,
    )


def _write(tx: Transaction, namespace: str, image: Image, lease: str) -> None:
    tx.execute(
        "INSERT INTO images (namespace, name, media_type, digest, size, annotations, created_at,"
        " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (namespace, name) DO UPDATE SET media_type = excluded.media_type,"
        " digest = excluded.digest, size = excluded.size, annotations = excluded.annotations,"
        " updated_at = excluded.updated_at",
        (
            namespace,
            image.name,
            image.target.media_type,
            image.target.digest,
            image.target.size,
            json.dumps(image.target.annotations),
            image.created_at,
            image.updated_at,
        ),
    )
    labels.replace(tx, _KIND, namespace, image.name, image.labels)
    if _EXPIRES in image.labels:
        attach_to_lease(tx, namespace, lease, _RESOURCE, image.name)
