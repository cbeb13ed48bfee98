"""Container records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask
from msgspec.structs import replace

from orlop.containers import listing, rows
from orlop.containers.model import Container, Facts
from orlop.errors import AlreadyExists, InvalidArgument
from orlop.events import Publisher
from orlop.metadata import Database, clock, fieldmask, filters, labels
from orlop.metadata.fieldmask import Mask
from orlop.metadata.filters import Lookup
from orlop.metadata.references import ensure_namespace
from orlop.rpc.context import validate_identifier
from orlop.wire.events_pb2 import ContainerCreate, ContainerDelete, ContainerUpdate

# Go clients name the field "snapshotkey" in a mask; the message calls it "snapshot_key".
_SNAPSHOT_KEY = ("snapshot_key", "snapshotkey")
_MUTABLE = ("labels", "image", "spec", "extensions", *_SNAPSHOT_KEY)


class ContainerStore:
    """The containers of every namespace; changes are announced under `/containers/`."""

    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db = db
        self._publisher = publisher

    def get(self, namespace: str, id: str) -> Container:
        """One container; raises NotFound."""
        with self._db.read() as tx:
            return rows.get(tx, namespace, id)

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Container]:
        """The containers that any of the filters `wanted` match, by id.

        Filters see `id`, `image`, `runtime.name` and `labels`.
        """
        chosen = filters.parse(wanted)
        with self._db.read() as tx:
            containers = list(rows.get_all(tx, namespace))
        if chosen.everything:
            return containers
        return [container for container in containers if chosen.matches(_lookup(container))]

    def listing(self, namespace: str) -> Sequence[bytes]:
        """All containers, by id, as the `containers` of a ListContainersResponse."""
        with self._db.read() as tx:
            return listing.containers(tx, rows.KIND, namespace)

    def facts(self, keys: Sequence[str]) -> Mapping[tuple[str, str], Facts]:
        """A few things of all containers, by namespace and id; of their labels those in `keys`."""
        with self._db.read() as tx:
            return rows.facts(tx, keys)

    def create(self, namespace: str, container: Container) -> Container:
        """Add a container and return it with its times set.

        Raises AlreadyExists, and InvalidArgument for a bad id or label, or when runtime, spec or
        the snapshotter of a snapshot is missing.
        """
        _validate(container)
        now = clock.now()
        container = replace(
            container,
            labels={key: value for key, value in container.labels.items() if value},
            created_at=now,
            updated_at=now,
        )
        with self._db.write() as tx:
            if rows.exists(tx, namespace, container.id):
                raise AlreadyExists(f'container "{container.id}"')
            ensure_namespace(tx, namespace)
            rows.write(tx, namespace, container)
            runtime = ContainerCreate.Runtime(
                name=container.runtime, options=container.runtime_options
            )
            event = ContainerCreate(id=container.id, image=container.image, runtime=runtime)
            tx.after_commit(
                partial(self._publisher.publish, namespace, "/containers/create", event)
            )
        return container

    def update(
        self, namespace: str, container: Container, mask: FieldMask | None = None
    ) -> Container:
        """Replace what `mask` names: labels, image, spec, extensions and the snapshot's key.

        Runtime, snapshotter and sandbox never change. Extensions are merged by key, also when
        replaced whole. Raises NotFound and InvalidArgument.
        """
        named = fieldmask.paths(mask or FieldMask(), fields=_MUTABLE, maps=("labels", "extensions"))
        with self._db.write() as tx:
            old = rows.get(tx, namespace, container.id)
            updated = _updated(old, container, named)
            _validate(updated)
            rows.write(tx, namespace, updated)
            event = ContainerUpdate(
                id=updated.id,
                image=updated.image,
                labels=updated.labels,
                snapshot_key=updated.snapshot_key,
            )
            tx.after_commit(
                partial(self._publisher.publish, namespace, "/containers/update", event)
            )
        return updated

    def set_label(self, namespace: str, id: str, key: str, value: str) -> None:
        """Change one label, and nothing else; as `update`."""
        changed = Container(id=id, runtime="", spec=None, labels={key: value})
        self.update(namespace, changed, FieldMask(paths=[f"labels.{key}"]))

    def delete(self, namespace: str, id: str) -> None:
        """Remove the record, nothing else; raises NotFound."""
        with self._db.write() as tx:
            rows.delete(tx, namespace, id)
            event = ContainerDelete(id=id)
            tx.after_commit(
                partial(self._publisher.publish, namespace, "/containers/delete", event)
            )


def _validate(container: Container) -> None:
    validate_identifier("container", container.id)
    labels.validate(container.labels)
    if "" in container.extensions:
        raise InvalidArgument(f'container "{container.id}" has an extension without a name')
    if not container.runtime:
        raise InvalidArgument(f'container "{container.id}" has no runtime name')
    if container.spec is None:
        raise InvalidArgument(f'container "{container.id}" has no spec')
    if container.snapshot_key and not container.snapshotter:
        raise InvalidArgument(f'container "{container.id}" has a snapshot key but no snapshotter')


def _updated(old: Container, new: Container, mask: Mask) -> Container:
    if mask.everything:
        for field in ("runtime", "snapshotter"):
            if getattr(old, field) != getattr(new, field):
                raise InvalidArgument(f'container "{old.id}": field "{field}" cannot be updated')
    key = any(mask.has(name) for name in _SNAPSHOT_KEY)
    extensions = mask.merge("extensions", old.extensions, new.extensions)
    if mask.has("extensions"):
        extensions = {**old.extensions, **extensions}
    return replace(
        old,
        labels=mask.merge("labels", old.labels, new.labels),
        image=new.image if mask.has("image") else old.image,
        spec=new.spec if mask.has("spec") else old.spec,
        snapshot_key=new.snapshot_key if key else old.snapshot_key,
        extensions=extensions,
        updated_at=clock.now(),
    )


def _lookup(container: Container) -> Lookup:
    fields = {
        "id": container.id,
        "image": container.image,
        "runtime.name": container.runtime,
    }
    return filters.record(fields, labels=container.labels)
