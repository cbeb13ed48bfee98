"""Calls: one, a list of ten thousand, and how soon a daemon or a command answers at all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from benchmarks import rivals
from benchmarks.api import GrpcConnection, put_blob
from benchmarks.lean import LeanClient
from benchmarks.measure import Result, at_most, in_turns, within
from benchmarks.rivals import Rival, orlop, run
from benchmarks.stage import Stage
from orlop.client.containers import RUNTIME, SPEC_TYPE
from orlop.wire.services import containers_pb2, images_pb2, snapshots_pb2
from orlop.wire.types_pb2 import Descriptor

_NAMESPACE = "lists"
_ROOT = "containerd.io/gc.root"
_VERSION = "/containerd.services.version.v1.Version/Version"
_GET = "/containerd.services.containers.v1.Containers/Get"
_LABEL = "/containerd.services.containers.v1.Containers/Update"
_SNAPSHOTTER = "overlayfs"
_LISTS: dict[str, tuple[str, Message | None]] = {
    "containers": ("/containerd.services.containers.v1.Containers/List", None),
    "images": ("/containerd.services.images.v1.Images/List", None),
    "snapshots": (
        "/containerd.services.snapshots.v1.Snapshots/List",
        snapshots_pb2.ListSnapshotsRequest(snapshotter=_SNAPSHOTTER),
    ),
    "blobs": ("/containerd.services.content.v1.Content/List", None),
}


def bench_calls(stage: Stage) -> list[Result]:
    """The median of single calls, by a client that takes next to no time of its own."""
    for rival in stage.rivals:
        _fill(rival, 1)
    get = containers_pb2.GetContainerRequest(id="c0")
    update = containers_pb2.UpdateContainerRequest(container=_container(0))
    update.update_mask.paths.append("labels.number")
    return [
        *_calls(stage, "call that does nothing", _VERSION),
        *_calls(stage, "call that reads a record", _GET, get),
        *_calls(stage, "call that writes a record", _LABEL, update),
    ]


def _calls(stage: Stage, what: str, method: str, request: Message | None = None) -> list[Result]:
    blocks, count = (3, 100) if stage.quick else (10, 200)
    data = request.SerializeToString() if request else b""
    times: tuple[list[float], list[float]] = ([], [])
    cpu = [0.0, 0.0]
    clients = [LeanClient(rival.address, _NAMESPACE) for rival in stage.rivals]
    for block in range(blocks + 1):
        for index, (rival, client) in enumerate(zip(stage.rivals, clients, strict=True)):
            used, taken = _block(rival, client, method, data, count)
            if block:
                times[index].extend(taken)
                cpu[index] += used
    for client in clients:
        client.close()
    medians = (1000 * statistics.median(each) for each in times)
    return [
        Result.of(f"{what}: p50", medians, "ms", at_most(2)),
        Result.of(f"{what}: CPU", (1000 * each / blocks / count for each in cpu), "ms"),
    ]


def _block(
    rival: Rival, client: LeanClient, method: str, data: bytes, count: int
) -> tuple[float, list[float]]:
    """The daemon's processor time, and what each call took."""
    before, taken = rival.meter.cpu(), []
    for _ in range(count):
        start = time.perf_counter()
        client.call(method, data)
        taken.append(time.perf_counter() - start)
    return rival.meter.cpu() - before, taken


def bench_lists(stage: Stage) -> list[Result]:
    """Ten thousand containers, images, snapshots and blobs, each with two labels."""
    count, rounds = (1000, 3) if stage.quick else (10_000, 7)
    for rival in stage.rivals:
        _fill(rival, count)
        _fill_stores(rival, count)
    results = []
    for what, (method, request) in _LISTS.items():
        data = request.SerializeToString() if request else b""

        def one(rival: Rival, method: str = method, data: bytes = data) -> Callable[[], object]:
            def ask() -> None:
                with LeanClient(rival.address, _NAMESPACE) as client:
                    if len(client.call(method, data)) < 80 * count:
                        raise RuntimeError(f"{rival.name}: the list is too short")

            return ask

        results += stage.compare(
            f"list of {count} {what}", one(stage.ours), one(stage.theirs), rounds=rounds,
            budget=at_most(1),
        )  # fmt: skip
    return results


def _fill(rival: Rival, count: int) -> None:
    """Records of containers and images, where there are none yet."""
    connection = GrpcConnection(rival.address, _NAMESPACE)
    have = len(connection.containers.list(containers_pb2.ListContainersRequest()).containers)

    def add(index: int) -> None:
        connection.containers.create(
            containers_pb2.CreateContainerRequest(container=_container(index))
        )
        connection.images.create(images_pb2.CreateImageRequest(image=_image(index)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(have, count)))
    connection.close()


def _fill_stores(rival: Rival, count: int) -> None:
    """Snapshots and blobs, which nothing needs and their label keeps."""
    connection = GrpcConnection(rival.address, _NAMESPACE)

    def add(index: int) -> None:
        labels = {_ROOT: str(index), "kind": "record"}
        connection.snapshots.prepare(
            snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=_SNAPSHOTTER, key=f"snapshot-{index}", labels=labels
            )
        )
        put_blob(connection, f"blob {index}", labels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(count)))
    connection.close()


def _container(index: int) -> containers_pb2.Container:
    return containers_pb2.Container(
        id=f"c{index}",
        image="registry.example/some/where:latest",
        labels={"number": str(index), "kind": "record"},
        runtime=containers_pb2.Container.Runtime(name=RUNTIME),
        spec=Any(type_url=SPEC_TYPE, value=b"{}"),
    )


def _image(index: int) -> images_pb2.Image:
    return images_pb2.Image(
        name=f"registry.example/some/where:{index}",
        labels={"number": str(index), "kind": "record"},
        target=Descriptor(
            media_type="application/vnd.oci.image.manifest.v1+json",
            digest=f"sha256:{index:064x}",
            size=1000,
        ),
    )


def bench_start(stage: Stage) -> list[Result]:
    """From the start of a daemon to its first answer; and of a command to its end."""
    rounds = 3 if stage.quick else 7
    starts: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 1):
        for daemon, times in zip((rivals.orlopd, rivals.containerd), starts, strict=True):
            with daemon() as rival:
                if index:
                    times.append(rival.start_time)
    return [
        Result.of(
            "daemon: start to serving", map(statistics.median, starts), "s", within(0.6, "s")
        ),
        in_turns(
            "orlop version / ctr version", lambda: run(orlop(stage.ours, "version")),
            lambda: run(stage.theirs.ctr("version")), rounds=3 * rounds, budget=within(0.09, "s"),
        ),
    ]  # fmt: skip
