"""What every worker that reads a layer does: inflate and hash beside the reading, and answer."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator

from orlop.diff.decompress import decompress
from orlop.fork.worker import MAX_MESSAGE
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash

_READ = 256 * 1024
_AHEAD = 8  # pieces that may wait between the two threads
# Of a message, in JSON characters; a byte that is not UTF-8 takes six.
_BATCH_MAX = MAX_MESSAGE // 2


def batches(paths: Iterable[bytes]) -> Iterator[list[str]]:
    """Paths in lists that each fit into a message."""
    batch: list[str] = []
    length = 0
    for path in map(os.fsdecode, paths):
        needed = len(json.dumps(path)) + 2
        if batch and length + needed > _BATCH_MAX:
            yield batch
            batch, length = [], 0
        batch.append(path)
        length += needed
    if batch:
        yield batch


class Pump:
    """Reads, inflates and hashes in a thread; `read` gives the plain bytes, b"" at the end."""

    def __init__(self, source: int, max_size: int, max_ratio: int, max_zeros: int) -> None:
        self._source = source
        self._chunks = decompress(
            self._raw, max_size=max_size, max_ratio=max_ratio, max_zeros=max_zeros
        )
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_AHEAD)
        self._hash = new_hash()
        self._stopped = False
        self._ended = False
        self.size = 0
        threading.Thread(target=self._run, name="inflate", daemon=True).start()

    def _raw(self) -> bytes:
        return os.read(self._source, _READ)

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                if self._stopped:
                    return
                self._hash.update(chunk)
                self.size += len(chunk)
                self._queue.put(chunk)
            self._queue.put(b"")
        except Exception as error:  # noqa: BLE001 - raised again where the bytes are read
            self._queue.put(error)

    def read(self) -> bytes:
        if self._ended:
            return b""
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        self._ended = not item
        return item

    def stop(self) -> None:
        """The archive is refused: nobody reads any more."""
        self._stopped = True

    def digest(self) -> str:
        return str(Digest.from_hash(self._hash))
