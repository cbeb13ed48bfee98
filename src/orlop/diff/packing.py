"""Have a worker make a tar, and write it into the content store: the daemon's side of `pack`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO

from orlop.content import ContentStore
from orlop.content.writer import ContentWriter
from orlop.diff.compress import PLAIN
from orlop.diff.confinement import plain
from orlop.errors import NotFound
from orlop.fork.client import ForkServer
from orlop.fork.worker import Worker
from orlop.rpc import CallContext
from orlop.sys.fs import widen
from orlop.sys.mount import Mount

_JOB = "orlop.diff.pack:pack"
_NAME = "orlop-pack"
_READ = 256 * 1024
_PIPE = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tar of the changes from `lower` to `upper`; see `orlop.tar.changes.Layer`.

    The worker tells the digest of the plain tar, unless `hashed` is False: who writes a plain tar
    into the store knows it.
    """

    upper: Sequence[Mount]
    lower: Sequence[Mount] = ()
    overlay: str = ""
    compression: str = PLAIN
    newest: int | None = None
    mount_points: Sequence[str] = ()
    hashed: bool = True


def pack(forks: ForkServer, wanted: Wanted, writer: ContentWriter, ctx: CallContext) -> str | None:
    """Write the tar to `writer`, from its start; the digest of the plain tar, if it is `hashed`.

    None when the upper folder does not tell all (see `RedirectedError`). Raises what is wrong with
    a file, ResourceExhausted on a full disk, Cancelled; the worker has ended then.
    """
    writer.seek(0)
    with packing(forks, wanted) as (worker, tar):
        ctx.on_cancel(worker.cancel)
        try:
            while data := tar.read(_READ):
                writer.write(data)
            answer = worker.result()
        finally:
            ctx.check()
    diff_id: str | None = answer.get("diff_id")
    return diff_id


@contextmanager
def packing(forks: ForkServer, wanted: Wanted) -> Iterator[tuple[Worker, FileIO]]:
    """A worker that makes the tar, and the pipe to read it from."""
    args = {
        "lower": plain(wanted.lower),
        "upper": plain(wanted.upper),
        "overlay": wanted.overlay,
        "compression": wanted.compression,
        "newest": wanted.newest,
        "mount_points": list(wanted.mount_points),
        "hashed": wanted.hashed,
    }
    read, write = os.pipe2(os.O_CLOEXEC)
    with FileIO(read) as tar:
        widen(write, _PIPE)
        try:
            worker = Worker(forks, _JOB, args, [write], name=_NAME)
        finally:
            os.close(write)
        with worker:
            yield worker, tar


def abandon(content: ContentStore, writer: ContentWriter) -> None:
    """Give up a write and what it has written."""
    if not writer.closed:
        writer.seek(0)  # on a full disk the database needs room to forget it
        writer.close()
    try:
        content.abort(writer.namespace, writer.ref)
    except NotFound:
        pass  # somebody else gave it up
