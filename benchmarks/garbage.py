"""Garbage collection in a store that is large and nearly all alive."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.api import GrpcConnection, put_blob
from benchmarks.lean import LeanClient
from benchmarks.measure import Result, at_most
from benchmarks.rivals import Rival
from benchmarks.stage import Stage
from orlop.client import Connection
from orlop.wire.services import content_pb2, images_pb2, leases_pb2
from orlop.wire.types_pb2 import Descriptor

_NAMESPACE = "garbage"
_UPDATE = "/containerd.services.images.v1.Images/Update"
_GARBAGE = 100
_PROBE = "probe"


def bench_garbage(stage: Stage) -> list[Result]:
    """A hundred blobs become garbage among a hundred thousand that are held: how long it takes
    until they are gone, and the longest that a client waits meanwhile for a label to be written."""
    live, rounds = (5_000, 3) if stage.quick else (100_000, 7)
    for rival in stage.rivals:
        _fill(rival, live)
    taken: tuple[list[float], list[float]] = ([], [])
    waited: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 1):
        for number, rival in enumerate(stage.rivals):
            times = _collect(rival, index)
            if index:
                taken[number].append(1000 * times[0])
                waited[number].append(1000 * times[1])
            time.sleep(1)
    what = f"{_GARBAGE} garbage blobs among {live}"
    return [
        Result.of(f"{what}: until they are gone", map(statistics.median, taken), "ms", at_most(1)),
        Result.of(f"{what}: longest write", map(statistics.median, waited), "ms", at_most(0.1)),
    ]


def _fill(rival: Rival, count: int) -> None:
    connection = GrpcConnection(rival.address, _NAMESPACE)
    connection.leases.create(leases_pb2.CreateRequest(id="held"))
    connection.images.create(images_pb2.CreateImageRequest(image=_image("0")))
    held = connection.with_lease("held")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put_blob(held, f"live {n}"), range(count)))
    connection.close()


def _collect(rival: Rival, round: int) -> tuple[float, float]:
    """Seconds until a hundred blobs are gone, and those of the slowest call meanwhile."""
    connection = GrpcConnection(rival.address, _NAMESPACE)
    lease = f"garbage-{round}"
    connection.leases.create(leases_pb2.CreateRequest(id=lease))
    held = connection.with_lease(lease)
    digests = [put_blob(held, f"garbage {round} {n}") for n in range(_GARBAGE)]
    over, longest = threading.Event(), [0.0]
    probe = threading.Thread(target=_probe, args=(rival, over, longest))
    probe.start()
    time.sleep(0.2)
    start = time.perf_counter()
    connection.leases.delete(leases_pb2.DeleteRequest(id=lease, sync=True))
    passed = time.perf_counter() - start
    over.set()
    probe.join()
    if _digests(connection).intersection(digests):
        raise RuntimeError(f"{rival.name}: garbage is left")
    connection.close()
    return passed, longest[0]


def _probe(rival: Rival, over: threading.Event, longest: list[float]) -> None:
    number = 0
    with LeanClient(rival.address, _NAMESPACE) as client:
        while not over.is_set():
            number += 1
            request = images_pb2.UpdateImageRequest(image=_image(str(number)))
            request.update_mask.paths.append("labels.number")
            start = time.perf_counter()
            client.call(_UPDATE, request.SerializeToString())
            longest[0] = max(longest[0], time.perf_counter() - start)
            time.sleep(0.001)


def _image(number: str) -> images_pb2.Image:
    target = Descriptor(media_type="application/x", digest=f"sha256:{0:064x}", size=1)
    return images_pb2.Image(name=_PROBE, labels={"number": number}, target=target)


def _digests(connection: Connection) -> set[str]:
    def listed() -> Iterator[str]:
        for part in connection.content.list(content_pb2.ListContentRequest()):
            yield from (info.digest for info in part.info)

    return set(listed())
