"""The worker that unpacks a layer: confinement first, then bytes.

In a mount namespace of its own the target folder becomes the root of the process, and all else is
unmounted; what privileges remain are those that writing other people's files takes. One thread
inflates and hashes, the other writes; both mostly outside the interpreter lock.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orlop.diff.confinement import confine, mounts_of, private_mounts
from orlop.diff.decompress import decompress
from orlop.errors import OrlopError, ResourceExhausted
from orlop.fork.worker import MAX_MESSAGE, Report
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash
from orlop.sys import process
from orlop.sys.mount import MS_BIND, mount, mount_all
from orlop.tar.extract import Extractor
from orlop.tar.reader import TarReader

_READ = 256 * 1024
_AHEAD = 8  # pieces that may wait between the two threads
# Of a message, in JSON characters; a byte that is not UTF-8 takes six.
_BATCH_MAX = MAX_MESSAGE // 2

_CAPABILITIES = frozenset(
    {
        process.CAP_CHOWN,
        process.CAP_DAC_OVERRIDE,
        process.CAP_DAC_READ_SEARCH,
        process.CAP_FOWNER,
        process.CAP_FSETID,
        process.CAP_MKNOD,
        process.CAP_SETFCAP,
        process.CAP_SYS_ADMIN,  # for trusted.overlay.* attributes
    }
)


def unpack(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job (see `orlop.fork.worker`): unpack the layer that descriptor 0 of `fds` gives.

    `args`: `folder`, or `mounts` to be mounted at `mount_point` where nobody else sees them;
    `overlay`, `max_size`, `max_ratio`, `max_entries`. Answers the `diff_id` and `size` of the plain
    tar and the number of `entries`; folders that the layer implies without containing are reported
    in batches, `{"implicit": […]}`.
    """
    (source,) = fds
    _confine(args)
    pump = _Pump(source, args["max_size"], args["max_ratio"])
    extractor = Extractor(overlay=args["overlay"], max_entries=args["max_entries"])
    try:
        reader = TarReader(pump.read)
        extractor.apply(reader)
        reader.drain()
    except OrlopError:
        pump.stop()
        raise
    except MemoryError:
        raise ResourceExhausted("layer has more names than fit in memory") from None
    for batch in _batches(extractor.implicit):
        report({"implicit": batch})
    return {"diff_id": pump.digest(), "size": pump.size, "entries": extractor.entries}


def _batches(paths: Iterable[bytes]) -> Iterator[list[str]]:
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


def _confine(args: dict[str, Any]) -> None:
    private_mounts()
    if args.get("folder"):
        target = Path(args["folder"])
        mount(str(target), target, "", MS_BIND)
    else:
        target = Path(args["mount_point"])
        mount_all(mounts_of(args["mounts"]), target)
    confine(target, _CAPABILITIES)


class _Pump:
    """Reads, inflates and hashes in a thread; `read` gives the plain bytes, b"" at the end."""

    def __init__(self, source: int, max_size: int, max_ratio: int) -> None:
        self._source = source
        self._chunks = decompress(self._raw, max_size=max_size, max_ratio=max_ratio)
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
