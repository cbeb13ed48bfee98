"""The store's folders: `blobs/<algorithm>/<hex>` and `ingest/<name>/data`."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orlop.errors import ResourceExhausted
from orlop.oci.digest import Digest

_ALGORITHMS = ("sha256", "sha384", "sha512")
_CHUNK = 1 << 20


class Files:
    """Paths below `root`, and the moves between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        for folder in (root, self._blobs, self._ingest, *map(self._blobs.joinpath, _ALGORITHMS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._blobs / algorithm / encoded

    def digests(self) -> set[str]:
        """Every blob that has a file."""
        return {
            f"{algorithm}:{entry.name}"
            for algorithm in _ALGORITHMS
            for entry in (self._blobs / algorithm).iterdir()
        }

    def ingest(self, name: str) -> Path:
        return self._ingest / name

    def ingests(self) -> set[str]:
        return {entry.name for entry in self._ingest.iterdir()}

    def drop_ingest(self, name: str) -> None:
        shutil.rmtree(self._ingest / name, ignore_errors=True)

    def publish(self, data: Path, digest: Digest) -> None:
        """Move verified, synced data to where blobs are, durably."""
        target = self.blob(digest)
        data.rename(target)
        fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def ingest_name(namespace: str, ref: str) -> str:
    """The folder of an ingest: a ref is free text, so its hash stands for it."""
    return hashlib.sha256(f"{namespace}/{ref}".encode()).hexdigest()


def hash_file(path: Path, state: hashlib._Hash) -> None:
    """Feed a whole file to a hash."""
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn a full disk into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(
                f'no space left for content below "{root}"; remove images or enlarge it'
            ) from error
        raise
