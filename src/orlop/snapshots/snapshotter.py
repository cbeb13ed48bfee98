"""The snapshotter interface: what the services, the unpacker and the runtime ask of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.snapshots.model import Info, Usage
from orlop.sys.mount import Mount


class Extraction(Protocol):
    """A private folder that becomes a committed snapshot when all about it is known.

    `path` is where the layer's files go, or with `image` its image (`orlop.erofs.folders`). Either
    `commit` or `discard` ends it.
    """

    path: Path
    image: bool

    def commit(
        self, name: str, parent: str, labels: Mapping[str, str] = ..., lease: str = ...
    ) -> None:
        """Make it the committed snapshot `name` on `parent`.

        Raises AlreadyExists, having discarded the folder, when somebody else was faster, and
        NotFound or InvalidArgument for a bad parent.
        """

    def discard(self) -> None: ...


class Snapshotter(Protocol):
    """Snapshots of one kind. Keys are free text, unique per namespace; names of committed
    snapshots share their space."""

    name: str
    # Whether `extraction` works: a layer can be unpacked before its parent is known.
    rebase: bool
    # Whether it may have layers by itself, and is asked before they are fetched.
    remote: bool

    def prepare(
        self,
        namespace: str,
        key: str,
        parent: str = ...,
        labels: Mapping[str, str] = ...,
        lease: str = ...,
    ) -> list[Mount]:
        """Start a writable snapshot on the committed `parent` ("" for none); its mounts.

        Raises AlreadyExists (the lease then holds what is there), NotFound for the parent,
        InvalidArgument when the parent is not committed.
        """

    def view(
        self,
        namespace: str,
        key: str,
        parent: str = ...,
        labels: Mapping[str, str] = ...,
        lease: str = ...,
    ) -> list[Mount]:
        """The same, read-only."""

    def mounts(self, namespace: str, key: str) -> list[Mount]:
        """Raises NotFound; FailedPrecondition for a committed one."""

    def commit(
        self,
        namespace: str,
        name: str,
        key: str,
        labels: Mapping[str, str] = ...,
        lease: str = ...,
        parent: str = ...,
    ) -> None:
        """Turn the active snapshot `key` into the committed one `name`.

        `parent` may be given for one that had none. Raises AlreadyExists for the name, NotFound
        for the key, FailedPrecondition for a view or committed one.
        """

    def remove(self, namespace: str, key: str) -> None:
        """Raises NotFound, and FailedPrecondition when it has children."""

    def stat(self, namespace: str, key: str) -> Info: ...

    def update(self, namespace: str, info: Info, mask: FieldMask) -> Info: ...

    def list(self, namespace: str, filters: Iterable[str] = ...) -> list[Info]: ...

    def listing(self, namespace: str) -> Sequence[bytes]:
        """All of a namespace, by key, as the `info` of ListSnapshotsResponses."""

    def usage(self, namespace: str, key: str) -> Usage: ...

    def sync(self) -> None:
        """Have what was unpacked on disk, before it is committed: a power cut must not take it."""

    def cleanup(self) -> None:
        """Delete what no snapshot owns; FailedPrecondition where some of it stays."""

    def extraction(self, namespace: str) -> Extraction:
        """A folder to unpack a layer into; Unimplemented where `rebase` is False."""
