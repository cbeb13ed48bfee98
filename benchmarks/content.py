"""Content through the API: a blob written, and read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from benchmarks.api import GrpcConnection
from benchmarks.measure import Result, at_least
from benchmarks.rivals import Rival
from benchmarks.stage import Stage
from orlop.errors import NotFound
from orlop.wire.services import content_pb2

_NAMESPACE = "content"
_PIECE = 1 << 20


def bench_content(stage: Stage) -> list[Result]:
    """Megabytes a second, a message of a megabyte at a time; grpcio is the client of both."""
    megabytes, rounds = (64, 3) if stage.quick else (256, 5)
    piece = os.urandom(_PIECE)
    blobs = _blobs(piece, megabytes, 2 * (rounds + 1))
    connections = [GrpcConnection(rival.address, _NAMESPACE) for rival in stage.rivals]
    written: dict[str, list[str]] = {rival.name: [] for rival in stage.rivals}

    def write(rival: Rival, connection: GrpcConnection) -> Callable[[], object]:
        return lambda: written[rival.name].append(
            _write(connection, *next(blobs), piece, megabytes)
        )

    def read(rival: Rival, connection: GrpcConnection) -> Callable[[], object]:
        return lambda: _read(connection, written[rival.name][-1], megabytes)

    results = []
    for what, action in (("written", write), ("read", read)):
        ours, theirs = map(action, stage.rivals, connections)
        taken, cpu = stage.compare(f"content {what}", ours, theirs, rounds=rounds, per=megabytes)
        results += [
            Result(f"content {what}", 1000 / taken.ours, 1000 / taken.theirs, "MB/s", at_least(1)),
            Result(f"content {what}: CPU per GB", 1.024 * cpu.ours, 1.024 * cpu.theirs, "s"),
        ]
    for connection, digests in zip(connections, written.values(), strict=True):
        for digest in digests:
            with suppress(NotFound):  # a garbage collector was faster
                connection.content.delete(content_pb2.DeleteContentRequest(digest=digest))
        connection.close()
    return results


def _blobs(piece: bytes, megabytes: int, count: int) -> Iterator[tuple[bytes, str]]:
    """What each blob begins with, which makes it another, and its digest."""
    found = []
    for number in range(count):
        start = number.to_bytes(8)
        digest = hashlib.sha256(start)
        for _ in range(megabytes):
            digest.update(piece)
        found.append((start, f"sha256:{digest.hexdigest()}"))
    return iter(found)


def _write(
    connection: GrpcConnection, start: bytes, name: str, piece: bytes, megabytes: int
) -> str:
    """Write a blob; its digest."""

    def requests() -> Iterator[content_pb2.WriteContentRequest]:
        kind, offset = content_pb2.WriteAction, 0
        for data in (start, *[piece] * megabytes):
            yield content_pb2.WriteContentRequest(
                action=kind.WRITE, ref=name, offset=offset, data=data
            )
            offset += len(data)
        yield content_pb2.WriteContentRequest(
            action=kind.COMMIT, ref=name, offset=offset, total=offset, expected=name
        )

    for _ in connection.content.write(requests()):
        pass
    return name


def _read(connection: GrpcConnection, digest: str, megabytes: int) -> None:
    request = content_pb2.ReadContentRequest(digest=digest)
    size = sum(len(part.data) for part in connection.content.read(request))
    if size != 8 + megabytes * _PIECE:
        raise RuntimeError(f"{size} bytes were read")
