"""What a store does beside pulls: small blobs, snapshots that come and go, layers of changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.api import GrpcConnection, put_blob
from benchmarks.measure import Result, at_most
from benchmarks.rivals import NAMESPACE, Rival
from benchmarks.stage import Stage
from orlop.client import Connection, images
from orlop.wire.services import content_pb2, diff_pb2, leases_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Mount

_BLOBS = 1000
_SNAPSHOTS = 100
_SNAPSHOTTER = "overlayfs"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FILE = 64 << 10

_round = count()


@contextmanager
def _held(rival: Rival) -> Iterator[Connection]:
    """A lease keeps what is made meanwhile."""
    connection = GrpcConnection(rival.address, NAMESPACE)
    lease = connection.leases.create(leases_pb2.CreateRequest(id=f"bench-{next(_round)}")).lease.id
    try:
        yield connection.with_lease(lease)
    finally:
        connection.leases.delete(leases_pb2.DeleteRequest(id=lease, sync=True))
        connection.close()


def bench_blobs(stage: Stage) -> list[Result]:
    """A thousand small blobs, one after the other."""
    rounds = 3 if stage.quick else 7

    def job(connection: Connection) -> Callable[[], object]:
        def write() -> None:
            start = next(_round)
            for number in range(_BLOBS):
                put_blob(connection, f"{start} {number}")

        return write

    with _held(stage.ours) as ours, _held(stage.theirs) as theirs:
        return stage.compare(
            "small blob", job(ours), job(theirs), rounds=rounds, per=_BLOBS, budget=at_most(1)
        )


def bench_snapshots(stage: Stage) -> list[Result]:
    """A snapshot on the small image, prepared and removed."""
    image, rounds = stage.with_small(), 5 if stage.quick else 15

    def job(connection: Connection) -> Callable[[], object]:
        parent = images.view(connection, images.get(connection, image)).chain_id

        def come_and_go() -> None:
            for _ in range(_SNAPSHOTS):
                key = f"snapshot-{next(_round)}"
                _prepare(connection, key, parent)
                _remove(connection, key)

        return come_and_go

    with _held(stage.ours) as ours, _held(stage.theirs) as theirs:
        return stage.compare(
            "snapshot prepared and removed", job(ours), job(theirs), rounds=rounds,
            per=_SNAPSHOTS, budget=at_most(1),
        )  # fmt: skip


def bench_diff(stage: Stage) -> list[Result]:
    """A layer of what is new in an upper folder, which is all that there is to read: a gigabyte."""
    image, files = stage.with_small(), 1600 if stage.quick else 16_000

    def job(connection: Connection) -> Callable[[], object]:
        parent = images.view(connection, images.get(connection, image)).chain_id
        key = f"changed-{next(_round)}"
        mounts = _prepare(connection, key, parent)
        (upper,) = [
            option.removeprefix("upperdir=")
            for option in mounts[0].options
            if option.startswith("upperdir=")
        ]
        _fill(Path(upper), files)
        view = snapshots_pb2.ViewSnapshotRequest(
            snapshotter=_SNAPSHOTTER, key=f"{key}-below", parent=parent
        )
        below = connection.snapshots.view(view).mounts

        def compare() -> None:
            made = connection.diff.diff(
                diff_pb2.DiffRequest(
                    left=below, right=mounts, media_type=_LAYER, ref=f"layer-{next(_round)}"
                )
            )
            if made.diff.size < files * _FILE:
                raise RuntimeError(f"the layer has {made.diff.size} bytes only")
            connection.content.delete(content_pb2.DeleteContentRequest(digest=made.diff.digest))

        return compare

    with _held(stage.ours) as ours, _held(stage.theirs) as theirs:
        return stage.compare(
            f"layer of {files * _FILE >> 20} MiB of changes, plain", job(ours), job(theirs),
            rounds=3, budget=at_most(0.7),
        )  # fmt: skip


def _fill(folder: Path, files: int) -> None:
    data = os.urandom(_FILE)
    for number in range(files):
        place = folder / f"of-{number // 500}"
        place.mkdir(exist_ok=True)
        (place / str(number)).write_bytes(number.to_bytes(8) + data[8:])


def _prepare(connection: Connection, key: str, parent: str) -> list[Mount]:
    request = snapshots_pb2.PrepareSnapshotRequest(snapshotter=_SNAPSHOTTER, key=key, parent=parent)
    return list(connection.snapshots.prepare(request).mounts)


def _remove(connection: Connection, key: str) -> None:
    request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=_SNAPSHOTTER, key=key)
    connection.snapshots.remove(request)
