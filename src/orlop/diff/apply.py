"""Apply a layer: the daemon's side."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as Payload

from orlop.content import ContentStore
from orlop.diff.confinement import plain
from orlop.diff.inherit import inherit_folders, looks_of
from orlop.diff.processors import Processors
from orlop.erofs.folders import LAYER, UNFINISHED, block_size, wants_image
from orlop.erofs.looks import fit, give
from orlop.errors import InvalidArgument
from orlop.fork.client import ForkServer
from orlop.fork.worker import Worker
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.sys.mount import Mount

# A layer from its beginning, as a descriptor.
_Stream = Callable[[], AbstractContextManager[int]]

_JOB = "orlop.diff.unpack:unpack"
_INDEX_JOB = "orlop.diff.index:index"
_NAME = "orlop-unpack"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may unpack to: bytes, entries, and bytes per compressed byte beyond 1 GiB.

    Runs of zeros become holes, and have a limit of their own: bytes, in the tar as in what sparse
    files lack there.
    """

    max_size: int = 64 << 30
    max_entries: int = 10_000_000
    max_ratio: int = 200
    max_zeros: int = 1 << 38


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came of a layer: digest and size of its plain tar, and the folders that it implied.

    In an image, `places` has where their inodes are.
    """

    diff_id: str
    size: int
    implicit: tuple[str, ...]
    places: tuple[int, ...] = ()

    def inherit(self, folder: Path, lowers: Sequence[Path]) -> bool:
        """Let implied folders in the image in `folder` look as in `lowers`.

        False where they have attributes: then the image must be made anew, with their looks.
        """
        looks = looks_of(lowers, self.implicit)
        if not fit(looks):
            return False
        give(folder / LAYER, dict(zip(self.implicit, self.places, strict=True)), looks)
        return True


class Unpacking:
    """A worker at work. Use as a context manager: leaving it early kills the worker.

    `unfinished` is what one that was killed may leave.
    """

    def __init__(self, worker: Worker, unfinished: Path | None = None) -> None:
        self._worker = worker
        self._unfinished = unfinished
        self._implicit: list[str] = []
        self._places: list[int] = []

    def result(self) -> Unpacked:
        """Wait for the end; raises what is wrong with the layer."""
        answer = self._worker.result(self._progress)
        return Unpacked(
            answer["diff_id"], answer["size"], tuple(self._implicit), tuple(self._places)
        )

    def _progress(self, message: dict[str, Any]) -> None:
        self._implicit += message.get("implicit", ())
        self._places += message.get("places", ())

    def cancel(self) -> None:
        self._worker.cancel()

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(self, *details: object) -> None:
        self._worker.__exit__(None, None, None)
        if self._unfinished is not None:
            self._unfinished.unlink(missing_ok=True)


def start_unpack(
    forks: ForkServer, source: int, folder: Path, *, overlay: bool, limits: Limits
) -> Unpacking:
    """Unpack what the descriptor `source` gives (a file or a pipe) into `folder`."""
    return _start(forks, source, {"folder": str(folder), "mounts": []}, overlay, limits)


def start_index(
    forks: ForkServer,
    source: int,
    folder: Path,
    *,
    limits: Limits,
    looks: Mapping[str, Any] | None = None,
    name: str = LAYER,
) -> Unpacking:
    """Make the image `name` in `folder` of the layer that the descriptor `source` gives.

    The folder is marked for one (`orlop.erofs.folders`). `looks` are those of folders that the
    layer implies (`orlop.diff.inherit`).
    """
    unfinished = folder / f"{UNFINISHED}{secrets.token_hex(8)}"  # two may do the same at once
    args = {
        "folder": str(folder),
        "name": name,
        "unfinished": unfinished.name,
        "block_size": block_size(folder),
        **asdict(limits),
    }
    if not looks:
        return Unpacking(Worker(forks, _INDEX_JOB, args, [source], name=_NAME), unfinished)
    with tempfile.TemporaryFile("w+") as told:
        json.dump(looks, told)
        told.flush()
        told.seek(0)
        fds = [source, told.fileno()]
        return Unpacking(Worker(forks, _INDEX_JOB, args, fds, name=_NAME), unfinished)


def _start(
    forks: ForkServer, source: int, target: dict[str, Any], overlay: bool, limits: Limits
) -> Unpacking:
    args = {
        **target,
        "overlay": overlay,
        **asdict(limits),
    }
    return Unpacking(Worker(forks, _JOB, args, [source], name=_NAME))


class Applier:
    """Applies layers from the content store to mounts."""

    def __init__(
        self,
        content: ContentStore,
        forks: ForkServer,
        limits: Limits | None = None,
        processors: Processors | None = None,
    ) -> None:
        self._content = content
        self._forks = forks
        self.limits = limits or Limits()
        self.processors = processors or Processors()

    def apply(
        self,
        namespace: str,
        layer: Descriptor,
        mounts: Sequence[Mount],
        ctx: CallContext,
        payloads: Mapping[str, Payload] | None = None,
    ) -> Descriptor:
        """Apply `layer` to the filesystem of `mounts`; the descriptor of its plain tar.

        `payloads` are for stream processors, by id. Raises NotFound without the blob,
        InvalidArgument without mounts, or for a layer that is malformed or of a media type that no
        processor takes, FailedPrecondition when one fails, ResourceExhausted beyond a limit. A
        cancelled call ends the worker.
        """
        if not mounts:
            raise InvalidArgument(f"no mounts to apply layer {layer.digest} to")
        target, image = _Target(mounts), wants_image(mounts)
        with self._content.open(namespace, layer.digest) as blob:
            stream = partial(self.processors.plain, layer.media_type, blob.fd, payloads)
            if image is not None:
                done = self._index(stream, image, target.lowers, ctx)
            else:
                done = self._unpack(stream, target, ctx)
        return Descriptor(media_type=mediatypes.OCI_LAYER, digest=done.diff_id, size=done.size)

    def _unpack(self, stream: _Stream, target: _Target, ctx: CallContext) -> Unpacked:
        with stream() as layer:
            work = _start(self._forks, layer, target.args, target.overlay, self.limits)
            done = _finish(work, ctx)
        if done.implicit and target.upper is not None:
            inherit_folders(target.upper, target.lowers, done.implicit)
        return done

    def _index(
        self, stream: _Stream, folder: Path, lowers: Sequence[Path], ctx: CallContext
    ) -> Unpacked:
        """Twice, where implied folders have attributes in the layers below: that is rare."""
        looks: dict[str, Any] = {}
        while True:
            with stream() as layer:
                work = start_index(self._forks, layer, folder, limits=self.limits, looks=looks)
                done = _finish(work, ctx)
            if looks or done.inherit(folder, lowers):
                return done
            looks = looks_of(lowers, done.implicit)


def _finish(unpacking: Unpacking, ctx: CallContext) -> Unpacked:
    """Wait for the end of a worker, which that of the call is too."""
    with unpacking:
        ctx.on_cancel(unpacking.cancel)
        try:
            return unpacking.result()
        finally:
            ctx.check()


class _Target:
    """Where the files of a layer go: straight to an upper folder where the mounts are of one."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        self.overlay = False
        self.upper: Path | None = None
        self.lowers: list[Path] = []
        self.args: dict[str, Any] = {"mounts": plain(mounts)}
        if len(mounts) != 1 or mounts[0].target:
            return
        (only,) = mounts
        options = dict(option.partition("=")[::2] for option in only.options)
        if only.type == "overlay" and "upperdir" in options and "userxattr" not in options:
            self.overlay = True
            self.upper = Path(options["upperdir"])
            self.lowers = [Path(lower) for lower in options["lowerdir"].split(":")]
            self.args = {"folder": str(self.upper), "mounts": []}
        elif only.type == "bind" and "ro" not in options:
            self.args = {"folder": only.source, "mounts": []}
