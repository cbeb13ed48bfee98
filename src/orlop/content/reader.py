"""A blob that is being read."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType


class BlobReader:
    """An open blob: `fd` to read, `size` in bytes. Deleting the blob does not disturb it."""

    def __init__(self, path: Path, size: int) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = size

    def read_all(self) -> bytes:
        return os.pread(self.fd, self.size, 0)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
