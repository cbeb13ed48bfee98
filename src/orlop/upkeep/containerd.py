"""What a containerd root holds, as its metadata database says.

The database has buckets `v1/<namespace>/<kind>/<name>`, a record each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orlop.errors import InvalidArgument
from orlop.upkeep.bolt import BoltFile, Bucket

_DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
_BLOBS = "io.containerd.content.v1.content/blobs"
_SCHEMA = "v1"
_HELD = ("content", "images")


class Blob(msgspec.Struct, frozen=True):
    digest: str
    size: int
    labels: dict[str, str]


class Image(msgspec.Struct, frozen=True):
    name: str
    media_type: str
    digest: str
    size: int
    labels: dict[str, str]
    annotations: dict[str, str]


class Lease(msgspec.Struct, frozen=True):
    id: str
    labels: dict[str, str]
    resources: list[tuple[str, str]]
    """Type and id of the blobs and images that it holds; not of snapshots and ingests."""


class Namespace:
    """One namespace of the database, read as it is asked for."""

    def __init__(self, name: str, bucket: Bucket) -> None:
        self.name = name
        self._bucket = bucket

    @property
    def labels(self) -> dict[str, str]:
        return _texts(self._bucket, "labels")

    def blobs(self) -> Iterator[Blob]:
        for digest, bucket in _children(self._bucket, "content", "blob"):
            yield Blob(digest, _varint(bucket.values().get("size", b"")), _texts(bucket, "labels"))

    def images(self) -> Iterator[Image]:
        for name, bucket in _children(self._bucket, "images"):
            target = bucket.find("target")
            values = target.values() if target else {}
            yield Image(
                name=name,
                media_type=values.get("mediatype", b"").decode(),
                digest=values.get("digest", b"").decode(),
                size=_varint(values.get("size", b"")),
                labels=_texts(bucket, "labels"),
                annotations=_texts(bucket, "annotations"),
            )

    def leases(self) -> Iterator[Lease]:
        for name, bucket in _children(self._bucket, "leases"):
            held = [
                (kind, each)
                for kind in _HELD
                if (names := bucket.find(kind)) is not None
                for each in names.values()
            ]
            yield Lease(name, _texts(bucket, "labels"), held)

    def containers(self) -> list[str]:
        """The ids of its containers."""
        return [name for name, _ in _children(self._bucket, "containers")]


class Root:
    """A containerd root, which no containerd uses meanwhile."""

    def __init__(self, path: Path, file: BoltFile) -> None:
        self._path = path
        self._file = file

    def namespaces(self) -> list[Namespace]:
        return [Namespace(*each) for each in _children(self._file.root, _SCHEMA)]

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self._path.joinpath(_BLOBS, *digest.split(":", 1))


@contextmanager
def opened(path: Path) -> Iterator[Root]:
    """Open a root.

    Raises InvalidArgument where there is none, FailedPrecondition while a containerd has it, and
    DataLoss when its database is damaged.
    """
    database = path / _DATABASE
    if not database.is_file():
        raise InvalidArgument(f'"{path}" is no root of containerd: there is no "{database}"')
    with BoltFile(database) as file:
        yield Root(path, file)


def _children(bucket: Bucket, *path: str) -> Iterator[tuple[str, Bucket]]:
    found = bucket.find(*path)
    if found is not None:
        yield from found.buckets()


def _texts(bucket: Bucket, name: str) -> dict[str, str]:
    found = bucket.find(name)
    return {key: value.decode() for key, value in found.values().items()} if found else {}


def _varint(data: bytes) -> int:
    """A signed number as Go's encoding/binary packs it: seven bits a byte, zigzag."""
    value = 0
    for position, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * position)
    return value >> 1 ^ -(value & 1)
