"""What the images and containers of a namespace take of the disk, and what of it they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from orlop.client import containers, snapshots, states
from orlop.client.connection import Connection
from orlop.client.images import list_all
from orlop.errors import Cancelled, DeadlineExceeded, NotFound, OrlopError
from orlop.wire.services import containers_pb2, content_pb2, snapshots_pb2

_CONTENT = "containerd.io/gc.ref.content"
_SNAPSHOT = "containerd.io/gc.ref.snapshot."

Part = tuple[str, str]
"""A blob, as "content" and its digest, or a snapshot, as its snapshotter and key."""


class ImageUsage(NamedTuple):
    """Bytes that an image takes with all it leads to, and how many of them no other image uses."""

    name: str
    size: int
    unique: int
    used: bool


class ContainerUsage(NamedTuple):
    """Bytes that a container has written, and whether it is running or paused."""

    id: str
    size: int
    alive: bool


class PartUsage(NamedTuple):
    """A blob ("content") or a snapshot, its bytes, and the images that lead to it."""

    kind: str
    name: str
    size: int
    images: list[str]


class Usage(NamedTuple):
    """All of a namespace, in bytes.

    `images_size` counts what images share once, `images_unused` what only images without a
    container take. `layers` are what containers stand on and no image leads to, since its name has
    moved, `layers_unused` those that only stopped containers need. `held` is what neither images
    nor containers lead to, but a lease does or a collection has not come to yet; `ingests` are
    writes that are not finished. Containers that could not be measured, and why, are in
    `unmeasured`: they count as if they had written nothing.
    """

    images: list[ImageUsage]
    images_size: int
    images_unused: int
    containers: list[ContainerUsage]
    layers: int
    layers_count: int
    layers_active: int
    layers_unused: int
    held: int
    held_count: int
    ingests: int
    ingests_count: int
    parts: list[PartUsage]
    unmeasured: Mapping[str, OrlopError]

    @property
    def total(self) -> int:
        """All bytes."""
        written = sum(each.size for each in self.containers)
        return self.images_size + written + self.layers + self.held + self.ingests


class _Store(NamedTuple):
    sizes: Mapping[Part, int]
    edges: Mapping[Part, list[Part]]


def of(connection: Connection) -> Usage:
    """What the namespace of the connection takes.

    Blobs that it shares with other namespaces are counted in each.
    """
    store = _store(connection)
    records = containers.list_records(connection)
    images = list_all(connection)
    in_use = {record.image for record in records}
    parts = {image.name: _reachable(store, [("content", image.target.digest)]) for image in images}
    # Two names of one image share all of it: to remove one of them frees nothing.
    users = Counter(part for found in parts.values() for part in found)
    own = {(each.snapshotter, each.snapshot_key) for each in records}
    below = _reachable(store, own)
    used = set().union(below, *(parts[name] for name in parts if name in in_use))
    everything = set().union(*parts.values())
    layers = below - everything - own
    held = store.sizes.keys() - everything - below
    written, unmeasured = _measured(connection, records)
    # What is asked after that fails where it was the daemon that had gone.
    tasks = states.all_tasks(connection)
    alive = {each.id for each in records if states.of(each, tasks.get(each.id)).alive}
    active = layers & _reachable(
        store, [(each.snapshotter, each.snapshot_key) for each in records if each.id in alive]
    )
    ingests = connection.content.list_statuses(content_pb2.ListStatusesRequest()).statuses
    return Usage(
        images=[
            ImageUsage(
                name,
                _size(store, found),
                _size(store, (part for part in found if users[part] == 1)),
                name in in_use,
            )
            for name, found in sorted(parts.items())
        ],
        images_size=_size(store, everything - own),
        images_unused=_size(store, everything - used),
        containers=[
            ContainerUsage(name, written.get(name, 0), name in alive)
            for name in sorted(str(each.id) for each in records)
        ],
        layers=_size(store, layers),
        layers_count=len(layers),
        layers_active=len(active),
        layers_unused=_size(store, layers - active),
        held=_size(store, held),
        held_count=len(held),
        ingests=sum(each.offset for each in ingests),
        ingests_count=len(ingests),
        parts=[
            PartUsage(*part, size, sorted(name for name in parts if part in parts[name]))
            for part, size in sorted(store.sizes.items(), key=lambda item: -item[1])
        ],
        unmeasured=unmeasured,
    )


def _store(connection: Connection) -> _Store:
    sizes: dict[Part, int] = {}
    edges: dict[Part, list[Part]] = {}
    for answer in connection.content.list(content_pb2.ListContentRequest()):
        for info in answer.info:
            part = ("content", info.digest)
            sizes[part] = info.size
            edges[part] = list(_references(info.labels))
    for snapshotter in snapshots.snapshotters(connection):
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter)
        for batch in connection.snapshots.list(request):
            for snapshot in batch.info:
                part = (snapshotter, snapshot.name)
                edges[part] = [(snapshotter, snapshot.parent)] if snapshot.parent else []
                committed = snapshot.kind == snapshots_pb2.COMMITTED
                sizes[part] = _written(connection, *part) if committed else 0
    return _Store(sizes, edges)


def _references(labels: Mapping[str, str]) -> Iterable[Part]:
    for key, value in labels.items():
        if key == _CONTENT or key.startswith((f"{_CONTENT}.", f"{_CONTENT}/")):
            yield "content", value
        elif key.startswith(_SNAPSHOT):
            yield key.removeprefix(_SNAPSHOT).partition("/")[0], value


def _measured(
    connection: Connection, records: Iterable[containers_pb2.Container]
) -> tuple[dict[str, int], dict[str, OrlopError]]:
    """Bytes that containers have written, and why that of others cannot be told."""
    sizes: dict[str, int] = {}
    failures: dict[str, OrlopError] = {}
    for each in records:
        try:
            sizes[each.id] = _written(connection, each.snapshotter, each.snapshot_key)
        except (Cancelled, DeadlineExceeded):
            raise
        except OrlopError as error:
            failures[each.id] = error
    return sizes, failures


def _written(connection: Connection, snapshotter: str, key: str) -> int:
    """Bytes of a snapshot's own; 0 for one that has gone meanwhile, or that there never was."""
    if not key:
        return 0
    with suppress(NotFound):
        request = snapshots_pb2.UsageRequest(snapshotter=snapshotter, key=key)
        return int(connection.snapshots.usage(request).size)
    return 0


def _reachable(store: _Store, start: Iterable[Part]) -> set[Part]:
    found: set[Part] = set()
    ways = [part for part in start if part in store.sizes]
    while ways:
        part = ways.pop()
        if part not in found:
            found.add(part)
            ways.extend(each for each in store.edges[part] if each in store.sizes)
    return found


def _size(store: _Store, parts: Iterable[Part]) -> int:
    return sum(store.sizes[part] for part in parts)
