"""Make a layer from two snapshots: the daemon's side."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask

from orlop.content import ContentStore
from orlop.content.writer import ContentWriter
from orlop.diff.compress import GZIP, PLAIN, ZSTD
from orlop.diff.packing import Wanted, abandon, pack
from orlop.errors import AlreadyExists, Unimplemented
from orlop.fork.client import ForkServer
from orlop.oci import mediatypes
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext
from orlop.sys.mount import Mount
from orlop.tar.sides import Upper, for_reading, upper_of

UNCOMPRESSED = "containerd.io/uncompressed"
"""The label that tells the digest of the plain tar of a compressed layer."""

DEFAULT = mediatypes.OCI_LAYER + "+gzip"
_COMPRESSIONS = {
    mediatypes.OCI_LAYER: PLAIN,
    mediatypes.OCI_LAYER + "+gzip": GZIP,
    mediatypes.OCI_LAYER + "+zstd": ZSTD,
    mediatypes.DOCKER_LAYER: PLAIN,
    mediatypes.DOCKER_LAYER + ".gzip": GZIP,
    mediatypes.DOCKER_LAYER + ".zstd": ZSTD,
}


class Comparer:
    """Makes layers and puts them into the content store."""

    def __init__(self, content: ContentStore, forks: ForkServer) -> None:
        self._content = content
        self._forks = forks

    def compare(
        self,
        left: Sequence[Mount],
        right: Sequence[Mount],
        ctx: CallContext,
        *,
        media_type: str = "",
        ref: str = "",
        labels: Mapping[str, str] | None = None,
        newest: int | None = None,
        mount_points: Sequence[str] = (),
    ) -> Descriptor:
        """The layer that makes the filesystem of `right` out of that of `left`, in the store.

        `media_type` is gzip's by default; `ref` that of the write, whose earlier data goes; no time
        in the layer is later than `newest` (UTC nanoseconds), which is also that of deletions;
        `mount_points`, paths of empty files, are left out where they are new. The blob is labelled
        with its plain tar's digest, and held by the call's lease. Raises
        Unimplemented for another media type, Unavailable while another write has the ref,
        ResourceExhausted on a full disk, Cancelled, and what is wrong with a file; nothing is left
        then.
        """
        media_type = media_type or DEFAULT
        if media_type not in _COMPRESSIONS:
            raise Unimplemented(f'making a layer of media type "{media_type}"')
        compression = _COMPRESSIONS[media_type]
        namespace, ref = ctx.require_namespace(), ref or f"diff-{secrets.token_hex(8)}"
        with self._content.writer(namespace, ref, lease=ctx.lease) as writer:
            try:
                wanted = partial(
                    Wanted,
                    lower=for_reading(left),
                    compression=compression,
                    newest=newest,
                    mount_points=mount_points,
                    hashed=compression != PLAIN,
                )
                diff_id = self._pack(wanted, right, upper_of(left, right), writer, ctx)
                told = dict(labels or {})
                if compression != PLAIN:
                    told[UNCOMPRESSED] = diff_id
                digest, size = writer.digest(), writer.offset
                try:
                    writer.commit(labels=told)
                except AlreadyExists:
                    self._tell(namespace, digest, told)
            except BaseException:
                abandon(self._content, writer)
                raise
        return Descriptor(media_type=media_type, digest=digest, size=size)

    def _pack(
        self,
        wanted: Callable[..., Wanted],
        right: Sequence[Mount],
        found: Upper | None,
        writer: ContentWriter,
        ctx: CallContext,
    ) -> str:
        if found is not None:
            quick = wanted(upper=[found.mount], overlay=found.attributes)
            diff_id = pack(self._forks, quick, writer, ctx)
            if diff_id is not None:
                return diff_id
        diff_id = pack(self._forks, wanted(upper=for_reading(right)), writer, ctx)
        assert diff_id is not None
        return diff_id

    def _tell(self, namespace: str, digest: str, labels: Mapping[str, str]) -> None:
        """The layer was there before; what its labels lack is added."""
        before = self._content.info(namespace, digest).labels
        missing = {key: value for key, value in labels.items() if key not in before}
        if missing:
            mask = FieldMask(paths=[f"labels.{key}" for key in missing])
            self._content.update(namespace, digest, missing, mask)
