"""A folder as a tar in the content store, and back: what checkpoints are kept as."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from orlop.content import ContentStore
from orlop.content.writer import ContentWriter
from orlop.diff.apply import Limits, start_unpack
from orlop.diff.packing import Wanted, abandon, pack
from orlop.errors import AlreadyExists
from orlop.fork.client import ForkServer
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.sys.mount import Mount

# Memory of processes: as large as it is, and compressible as it is.
_LIMITS = Limits(max_size=1 << 50, max_entries=1_000_000, max_ratio=1 << 30, max_zeros=1 << 50)


class FolderStore:
    """Stores folders and documents as blobs of a call's namespace, held by its lease."""

    def __init__(self, content: ContentStore, forks: ForkServer) -> None:
        self._content = content
        self._forks = forks

    def save(self, folder: Path, media_type: str, ctx: CallContext) -> Descriptor:
        """The files of `folder` as a plain tar. Raises ResourceExhausted on a full disk."""
        wanted = Wanted(upper=[Mount("bind", str(folder), options=("bind", "ro"))])

        def fill(writer: ContentWriter) -> None:
            pack(self._forks, wanted, writer, ctx)

        return self._store(media_type, fill, ctx)

    def put(self, data: bytes, media_type: str, ctx: CallContext) -> Descriptor:
        return self._store(media_type, lambda writer: writer.write(data), ctx)

    def load(self, wanted: Descriptor, folder: Path, ctx: CallContext) -> None:
        """Unpack a tar into `folder`; raises NotFound without it, InvalidArgument for no tar."""
        with self._content.open(ctx.require_namespace(), wanted.digest) as blob:
            os.lseek(blob.fd, 0, os.SEEK_SET)
            with start_unpack(
                self._forks, blob.fd, folder, overlay=False, limits=_LIMITS
            ) as unpacking:
                ctx.on_cancel(unpacking.cancel)
                try:
                    unpacking.result()
                finally:
                    ctx.check()

    def _store(
        self, media_type: str, fill: Callable[[ContentWriter], None], ctx: CallContext
    ) -> Descriptor:
        ref = f"folder-{secrets.token_hex(8)}"
        with self._content.writer(ctx.require_namespace(), ref, lease=ctx.lease) as writer:
            try:
                fill(writer)
                digest, size = writer.digest(), writer.offset
                try:
                    writer.commit()
                except AlreadyExists:
                    pass  # the same bytes, held by the lease now
            except BaseException:
                abandon(self._content, writer)
                raise
        return Descriptor(media_type=media_type, digest=digest, size=size)
