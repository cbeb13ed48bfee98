"""The files of an archive that have no digest for a name, until it is known which are wanted."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol

from orlop.content import ContentWriter
from orlop.errors import AlreadyExists, NotFound
from orlop.transfer.archive.stored import StoredParts


class File(Protocol):
    """A file of an archive: what it is, and how it becomes a blob."""

    digest: str
    size: int

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; none at the end."""

    def keep(self) -> None:
        """Make it a blob of the store. Idempotent."""


class StoredFile:
    """One that is a blob already."""

    def __init__(self, parts: StoredParts, digest: str, size: int) -> None:
        self.digest = digest
        self.size = size
        self._parts = parts

    def read(self, size: int, offset: int) -> bytes:
        with self._parts.content.open(self._parts.namespace, self.digest) as blob:
            return os.pread(blob.fd, size, offset)

    def keep(self) -> None:
        """It is kept."""


class SmallFile:
    """One in memory."""

    def __init__(self, parts: StoredParts, digest: str, data: bytes) -> None:
        self.digest = digest
        self.size = len(data)
        self._parts = parts
        self._data = data

    def read(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]

    def keep(self) -> None:
        self._parts.put([self._data], size=self.size, expected=self.digest)


class HeldFile:
    """One in an ingest, which goes unless it is kept."""

    def __init__(self, parts: StoredParts, writer: ContentWriter) -> None:
        self.digest: str = writer.digest()
        self.size = writer.offset
        self._parts = parts
        self._writer = writer
        self._kept: StoredFile | None = None

    def read(self, size: int, offset: int) -> bytes:
        if self._kept is not None:
            return self._kept.read(size, offset)
        return self._writer.read(size, offset)

    def keep(self) -> None:
        if self._kept is None:
            with suppress(AlreadyExists):
                self._writer.commit(self.size, self.digest)
            self._kept = StoredFile(self._parts, self.digest, self.size)

    def drop(self) -> None:
        """Remove it, unless it is kept."""
        self._writer.close()
        if self._kept is None:
            with suppress(NotFound):
                self._parts.content.abort(self._parts.namespace, self._writer.ref)
