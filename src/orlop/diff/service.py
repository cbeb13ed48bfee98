"""The diff service."""

from __future__ import annotations

from orlop.diff.apply import Applier
from orlop.errors import Unimplemented
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext, Service
from orlop.sys.mount import Mount
from orlop.wire.services import diff_pb2 as pb
from orlop.wire.types_pb2 import Descriptor as WireDescriptor


class DiffService(Service):
    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Diff"]

    def __init__(self, applier: Applier) -> None:
        self._applier = applier

    def apply(self, request: pb.ApplyRequest, ctx: CallContext) -> pb.ApplyResponse:
        wanted = request.diff
        layer = Descriptor(media_type=wanted.media_type, digest=wanted.digest, size=wanted.size)
        mounts = [Mount(m.type, m.source, m.target, tuple(m.options)) for m in request.mounts]
        done = self._applier.apply(ctx.require_namespace(), layer, mounts, ctx)
        return pb.ApplyResponse(
            applied=WireDescriptor(media_type=done.media_type, digest=done.digest, size=done.size)
        )

    def diff(self, request: pb.DiffRequest, ctx: CallContext) -> pb.DiffResponse:
        del request, ctx
        raise Unimplemented("making a layer from two snapshots is not offered yet")
