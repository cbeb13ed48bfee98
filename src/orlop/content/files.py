"""The store's folders: `blobs/<algorithm>/<hex>`, and per ingest `ingest/<name>/`.

An ingest's folder has `data`, the bytes written so far, or `shared`, a link to another namespace's
blob that holds the bytes already. What lies in `trash/` is being deleted; what was found damaged
stays in `damaged/`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orlop.errors import ResourceExhausted
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash
from orlop.sys.fs import SCARCE, sync_folder

_ALGORITHMS = ("sha256", "sha384", "sha512")
DATA = "data"
SHARED = "shared"


class Files:
    """Paths below `root`, and the moves between them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self._ingest = root / "ingest"
        self.trash = root / "trash"
        self.damaged = root / "damaged"
        folders = (root, self.blobs, self._ingest, self.trash, self.damaged)
        for folder in (*folders, *map(self.blobs.joinpath, _ALGORITHMS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.blobs / algorithm / encoded

    def sizes(self) -> dict[str, int]:
        """Every blob that has a file, and the file's size."""
        return {
            f"{algorithm}:{entry.name}": entry.stat().st_size
            for algorithm in _ALGORITHMS
            for entry in os.scandir(self.blobs / algorithm)
        }

    def identity(self, digest: str) -> tuple[int, int] | None:
        """What is another one when a blob's file, or what is in it, is; None without a file."""
        try:
            found = self.blob(digest).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_ctime_ns

    def is_whole(self, digest: str) -> bool:
        """Whether a blob's file is there, can be read, and has its digest.

        Raises OSError for what says nothing of the file, such as a want of descriptors.
        """
        state = new_hash(digest.partition(":")[0])
        try:
            hash_file(self.blob(digest), state)
        except OSError as error:
            if error.errno in SCARCE:
                raise
            return False
        return Digest.from_hash(state) == digest

    def ingest(self, name: str) -> Path:
        return self._ingest / name

    def ingests(self) -> set[str]:
        return {entry.name for entry in self._ingest.iterdir()}

    def written(self, name: str) -> tuple[int, int]:
        """How many bytes an ingest has, and when the last of them came: 0 and 0 without any."""
        for kind in (SHARED, DATA):
            with suppress(FileNotFoundError):
                found = (self._ingest / name / kind).stat()
                return found.st_size, found.st_mtime_ns
        return 0, 0

    def make_ingest(self, name: str) -> Path:
        """The folder of an ingest, with what is there already."""
        folder = self._ingest / name
        with disk_errors(self.root):
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def has_ingest(self, name: str) -> bool:
        return (self._ingest / name).exists()

    def clear_ingest(self, name: str) -> None:
        """Drop what is left of another ingest of that name, durably."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._ingest / name)
        sync_folder(self._ingest)

    def drop_ingest(self, name: str) -> None:
        shutil.rmtree(self._ingest / name, ignore_errors=True)

    def share(self, digest: str, name: str) -> bool:
        """Link a blob into an ingest, so that it stays whoever deletes it; False if it is gone."""
        shared = self._ingest / name / SHARED
        shared.unlink(missing_ok=True)
        try:
            with disk_errors(self.root):
                shared.hardlink_to(self.blob(digest))
        except FileNotFoundError:
            return False
        return True

    def publish(self, data: Path, digest: str) -> bool:
        """Give verified, synced data the blob's name as well, durably; False if it has a file.

        Raises FileNotFoundError when the data has gone.
        """
        target = self.blob(digest)
        with disk_errors(self.root):
            try:
                target.hardlink_to(data)
            except FileExistsError:
                return False
            _sync_name(target)
        return True

    def publish_instead(self, data: Path, digest: str) -> None:
        """As `publish` does it, in place of the file that has the name."""
        target, link = self.blob(digest), self.scratch()
        with disk_errors(self.root):
            try:
                link.hardlink_to(data)
                link.replace(target)
            finally:
                link.unlink(missing_ok=True)  # it stays if both are the same file
            _sync_name(target)

    def seal(self, data: Path) -> None:
        """Nobody writes any more to what is to be a blob."""
        with disk_errors(self.root):
            data.chmod(0o400)

    def remove(self, digest: str) -> None:
        self.blob(digest).unlink(missing_ok=True)

    def doom(self, digest: str) -> Path | None:
        """Take a blob's name from its file, at once; the file, to be deleted, if there is one."""
        doomed = self.trash / secrets.token_hex(8)
        try:
            return self.blob(digest).rename(doomed)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # For another name some filesystems (btrfs) need room, which is wanted back.
            self.blob(digest).unlink(missing_ok=True)
            return doomed

    def scratch(self) -> Path:
        """A path for data that may become a blob; left there, it goes at the next start."""
        return self.trash / secrets.token_hex(8)

    def set_aside(self, digest: str) -> Path | None:
        """Move a damaged blob to where nobody reads it; where that is, if there was a file."""
        try:
            aside = self.blob(digest).rename(self._aside(digest))
        except FileNotFoundError:
            return None
        sync_folder(self.damaged)
        return aside

    def replace(self, data: Path, digest: str) -> None:
        """Let verified, synced data be a blob, at once; what was there is set aside."""
        target = self.blob(digest)
        with disk_errors(self.root):
            with suppress(FileNotFoundError):
                self._aside(digest).hardlink_to(target)
            data.replace(target)
        sync_folder(self.damaged)
        sync_folder(target.parent)

    def _aside(self, digest: str) -> Path:
        return self.damaged / f"{digest.replace(':', '-')}.{secrets.token_hex(4)}"

    def empty_trash(self) -> None:
        """Delete what was doomed before a crash. Only at start."""
        for path in self.trash.iterdir():
            path.unlink(missing_ok=True)


def _sync_name(path: Path) -> None:
    """Have a name on disk, or not at all."""
    try:
        sync_folder(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def ingest_name(namespace: str, ref: str) -> str:
    """The folder of an ingest: a ref is free text, so its hash stands for it."""
    return hashlib.sha256(f"{namespace}/{ref}".encode()).hexdigest()


def hash_file(path: Path, state: Any) -> None:
    """Feed a whole file to a hash."""
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, lambda: state)


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
