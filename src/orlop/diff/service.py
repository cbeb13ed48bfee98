"""The diff service."""

from __future__ import annotations

from collections.abc import Iterable

from orlop.diff.apply import Applier
from orlop.diff.compare import Comparer
from orlop.diff.written import sync_written
from orlop.oci.descriptor import Descriptor
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import nanoseconds
from orlop.sys.mount import Mount
from orlop.tar.changes import MOUNT_POINTS
from orlop.wire.services import diff_pb2 as pb
from orlop.wire.types_pb2 import Descriptor as WireDescriptor
from orlop.wire.types_pb2 import Mount as WireMount


class DiffService(Service):
    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Diff"]

    def __init__(self, applier: Applier, comparer: Comparer) -> None:
        self._applier = applier
        self._comparer = comparer

    def apply(self, request: pb.ApplyRequest, ctx: CallContext) -> pb.ApplyResponse:
        wanted = request.diff
        layer = Descriptor(media_type=wanted.media_type, digest=wanted.digest, size=wanted.size)
        namespace = ctx.require_namespace()
        mounts = _mounts(request.mounts)
        done = self._applier.apply(namespace, layer, mounts, ctx, request.payloads)
        if request.sync_fs:
            sync_written(mounts)
        return pb.ApplyResponse(applied=_descriptor(done))

    def diff(self, request: pb.DiffRequest, ctx: CallContext) -> pb.DiffResponse:
        epoch = request.HasField("source_date_epoch")
        labels = dict(request.labels)
        mount_points = labels.pop(MOUNT_POINTS, "").split()
        made = self._comparer.compare(
            _mounts(request.left),
            _mounts(request.right),
            ctx,
            media_type=request.media_type,
            ref=request.ref,
            labels=labels,
            newest=nanoseconds(request.source_date_epoch) if epoch else None,
            mount_points=mount_points,
        )
        return pb.DiffResponse(diff=_descriptor(made))


def _mounts(mounts: Iterable[WireMount]) -> list[Mount]:
    return [Mount(m.type, m.source, m.target, tuple(m.options)) for m in mounts]


def _descriptor(found: Descriptor) -> WireDescriptor:
    return WireDescriptor(media_type=found.media_type, digest=found.digest, size=found.size)
