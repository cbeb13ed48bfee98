"""One write in progress."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orlop.content.files import DATA, SHARED, disk_errors, hash_file
from orlop.content.refs import unless_aborted
from orlop.errors import Aborted, FailedPrecondition, OutOfRange
from orlop.metadata import clock
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash

if TYPE_CHECKING:
    from orlop.content.store import ContentStore

_CLOSED = -1
_WRITABLE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Ingest:
    """The facts of a write. `shared_size` is set when another namespace's blob will do."""

    namespace: str
    ref: str
    folder: Path
    total: int
    expected: str
    started_at: int
    lease: str
    shared_size: int | None


class ContentWriter:
    """Appends to an ingest and commits it as a blob. One thread at a time.

    Its ref is locked until `close`, which keeps the data for a later writer to go on with. Use as a
    context manager.
    """

    def __init__(self, store: ContentStore, ingest: Ingest) -> None:
        self._store = store
        self._ingest = ingest
        self._closed = False
        self.total = ingest.total
        self.updated_at = clock.now()
        algorithm = Digest(ingest.expected).algorithm if ingest.expected else "sha256"
        self._hash: Any = new_hash(algorithm)
        self._fd = _CLOSED
        self._offset = 0
        self._shared = ingest.shared_size is not None
        if ingest.shared_size is not None:
            self._offset = self.total = ingest.shared_size
        else:
            self._open()
        self._resumed = self._offset > 0

    def _open(self) -> None:
        (self._ingest.folder / SHARED).unlink(missing_ok=True)
        data = self._ingest.folder / DATA
        with unless_aborted(self.ref), disk_errors(self._store.files.root):
            if data.exists():
                hash_file(data, self._hash)
            try:
                self._fd = os.open(data, _WRITABLE, 0o600)
            except PermissionError:  # it was to be a blob once, and protected
                _renew(data)
                self._fd = os.open(data, _WRITABLE, 0o600)
        self._offset = os.lseek(self._fd, 0, os.SEEK_END)

    @property
    def _path(self) -> Path:
        return self._ingest.folder / (SHARED if self._shared else DATA)

    @property
    def ref(self) -> str:
        return self._ingest.ref

    @property
    def namespace(self) -> str:
        return self._ingest.namespace

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def offset(self) -> int:
        """How many bytes are here."""
        return self._offset

    @property
    def resumed(self) -> bool:
        """Whether an earlier writer has left some of the bytes."""
        return self._resumed

    def fileno(self) -> int:
        """The file with the bytes so far, for reading; FailedPrecondition when it is another's."""
        if self._fd == _CLOSED:
            raise FailedPrecondition(f'ref "{self.ref}" has no file of its own')
        return self._fd

    @property
    def started_at(self) -> int:
        return self._ingest.started_at

    def digest(self) -> Digest:
        """The digest of the bytes so far."""
        if self._shared:
            return Digest(self._ingest.expected)
        return Digest.from_hash(self._hash)

    def write(self, data: bytes | memoryview) -> None:
        """Append; ResourceExhausted when the disk is full, with what fitted in `offset`."""
        self._check_open()
        if not data:
            return
        if self._shared:
            self._unshare()
        with disk_errors(self._store.files.root):
            view = memoryview(data)
            while view:
                written = os.pwrite(self._fd, view, self._offset)
                self._hash.update(view[:written])
                self._offset += written
                view = view[written:]
        self.updated_at = clock.now()

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` of the bytes that are here, which are no blob yet; none at the end."""
        self._check_open()
        if not self._shared:
            return os.pread(self._fd, size, offset)
        with self._path.open("rb") as shared:
            return os.pread(shared.fileno(), size, offset)

    def seek(self, offset: int) -> None:
        """Make `offset` the place of the next write: the end, or 0 to begin again.

        Any other place raises OutOfRange.
        """
        self._check_open()
        if offset == self._offset:
            return
        if offset != 0:
            raise OutOfRange(f'ref "{self.ref}" is at offset {self._offset}, not at {offset}')
        if self._shared:
            self._shared = False
            self._open()
        os.ftruncate(self._fd, 0)
        self._offset = 0
        self._resumed = False
        self._hash = new_hash(self._hash.name)
        self.updated_at = clock.now()

    def _unshare(self) -> None:
        """Somebody writes on after all: take a copy of the shared bytes."""
        with unless_aborted(self.ref), disk_errors(self._store.files.root):
            shutil.copyfile(self._path, self._ingest.folder / DATA)
        self._shared = False
        self._open()

    def commit(
        self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None
    ) -> Digest:
        """Verify, and make it a blob of the namespace; the writer is closed.

        `size` 0 checks nothing, `expected` "" only what the write was begun with. Raises
        FailedPrecondition for another size or digest (the data stays), AlreadyExists when the
        namespace has the blob (the data goes), Aborted when the write was aborted meanwhile.
        """
        self._check_open()
        try:
            if size and size != self._offset:
                raise FailedPrecondition(
                    f'ref "{self.ref}" has {self._offset} bytes, {size} were to be committed'
                )
            digest = self._verified(expected)
            with self._store.operations.timed("commit"):
                if not self._shared:
                    with disk_errors(self._store.files.root):
                        os.fsync(self._fd)
                    self._close_file()  # what is open to write cannot be protected
                self._store.finish(self._ingest, self._path, digest, self._offset, labels or {})
        except Aborted:  # it may have been opened after it was given up
            self._store.files.drop_ingest(self._ingest.folder.name)
            raise
        finally:
            self.close()
        return digest

    def _verified(self, expected: str) -> Digest:
        digest = self.digest()
        wanted = expected or self._ingest.expected
        if not wanted:
            return digest
        algorithm = Digest.parse(wanted).algorithm
        if algorithm != digest.algorithm:
            state = new_hash(algorithm)
            hash_file(self._path, state)
            digest = Digest.from_hash(state)
        if digest != wanted:
            raise FailedPrecondition(f'ref "{self.ref}" has digest {digest}, {wanted} was expected')
        return digest

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition(f'the writer of ref "{self.ref}" is closed')

    def close(self) -> None:
        """Release the ref; what was written stays for the next writer. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._close_file()
        finally:
            self._store.release(self.namespace, self.ref)

    def _close_file(self) -> None:
        if self._fd != _CLOSED:
            fd, self._fd = self._fd, _CLOSED
            os.close(fd)

    def __enter__(self) -> ContentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _renew(data: Path) -> None:
    """Put another file of the same bytes in the place of one that cannot be written to."""
    copy = data.with_name("copy")
    shutil.copyfile(data, copy)
    copy.replace(data)
