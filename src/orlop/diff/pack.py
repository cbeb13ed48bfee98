"""The worker that makes a layer: confinement first, then files.

One thread walks and reads, the other hashes, compresses and writes to a pipe; both mostly outside
the interpreter lock.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

from orlop.diff.compress import compressor
from orlop.diff.confinement import confine, mount_point, mounts_of, private_mounts
from orlop.errors import Unknown
from orlop.fork.worker import Report
from orlop.oci.digest import Digest
from orlop.oci.hashing import new_hash
from orlop.sys import process
from orlop.sys.limits import use_all_descriptors
from orlop.sys.mount import Mount, mount, mount_all
from orlop.tar.changes import Layer, RedirectedError
from orlop.tar.writer import TarWriter

_PIECE = 256 * 1024
_AHEAD = 8  # pieces that may wait between the two threads
_LOWER, _UPPER = "lower", "upper"
_CAPABILITIES = frozenset(
    {
        process.CAP_DAC_OVERRIDE,
        process.CAP_DAC_READ_SEARCH,
        process.CAP_SYS_ADMIN,  # to see trusted.overlay.* attributes
    }
)


def pack(args: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """The job (see `orlop.fork.worker`): the layer from `lower` to `upper`, into descriptor 0.

    `args`: `lower` (none is an empty tree) and `upper`, mounts to be made where nobody else sees
    them; `overlay`, `newest` and `mount_points` as in `Layer`; `compression`. Answers the `diff_id`
    of the plain tar, "" unless `hashed`, `redirected` where `upper` alone does not tell all, or
    `unread` where the other end was closed.
    """
    del report
    (target,) = fds
    _see_only(args)
    pump = _Pump(target, args["compression"], hashed=args["hashed"])
    layer = Layer(
        TarWriter(pump.write),
        overlay=args["overlay"],
        newest=args["newest"],
        mount_points=args["mount_points"],
    )
    lower = os.open(f"/{_LOWER}", os.O_RDONLY | os.O_DIRECTORY) if args["lower"] else None
    try:
        layer.write(lower, os.open(f"/{_UPPER}", os.O_RDONLY | os.O_DIRECTORY))
        pump.close()
    except RedirectedError:
        return {"redirected": True}
    except _UnreadError:
        return {"unread": True}
    return {"diff_id": pump.digest()}


def _see_only(args: dict[str, Any]) -> None:
    private_mounts()
    use_all_descriptors()
    root = mount_point()
    mount("tmpfs", root, "tmpfs", 0, "mode=0700")
    for name in (_LOWER, _UPPER):
        (root / name).mkdir()
        _mount(mounts_of(args[name]), root / name)
    confine(root, _CAPABILITIES)


def _mount(mounts: list[Mount], target: Path) -> None:
    try:
        mount_all(mounts, target)
    except OSError as error:
        told = "; ".join(f"{each.type} {each.source} {','.join(each.options)}" for each in mounts)
        reason = (error.strerror or str(error)).lower()
        raise Unknown(f'"{told}" cannot be mounted: {reason}') from error


class _UnreadError(Exception):
    """Nobody reads the tar any more, and will say why."""


class _Pump:
    """Hashes, compresses and writes what is written to it, in a thread."""

    def __init__(self, target: int, compression: str, *, hashed: bool) -> None:
        self._target = target
        self._compressor = compressor(compression)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._hash = new_hash() if hashed else None
        self._piece = bytearray()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="compress", daemon=True)
        self._thread.start()

    def write(self, data: bytes | memoryview) -> None:
        self._piece += data
        if len(self._piece) >= _PIECE:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._queue.put(bytes(self._piece))
        self._piece.clear()

    def close(self) -> None:
        """Write all that is left."""
        self._hand_over()
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def digest(self) -> str:
        return "" if self._hash is None else str(Digest.from_hash(self._hash))

    def _run(self) -> None:
        try:
            while (piece := self._queue.get()) is not None:
                if self._hash is not None:
                    self._hash.update(piece)
                self._send(self._compressor.compress(piece))
            self._send(self._compressor.flush())
        except Exception as error:  # noqa: BLE001 - raised again where more is written
            unread = isinstance(error, BrokenPipeError)
            self._failure = _UnreadError() if unread else error
            while self._queue.get() is not None:
                pass  # nobody may wait for room

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._target, view) :]
