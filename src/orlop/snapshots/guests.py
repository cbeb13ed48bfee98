"""Snapshotters for another daemon, which uses them as a proxy plugin.

It tells no namespace when it looks for garbage, and its leases are unknown here: what it has is in
a namespace of its own, and kept until it removes it.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty

from orlop.rpc import CallContext
from orlop.snapshots.service import SnapshotsService
from orlop.snapshots.snapshotter import Snapshotter
from orlop.wire.services import snapshots_pb2 as pb

NAMESPACE = "guests"

_PREFIX = "orlop"
_ROOT = "containerd.io/gc.root"


class GuestSnapshotsService(SnapshotsService):
    """Serves them as `orlop`, the default one, and `orlop-NAME`; also by their own names."""

    def _find(self, name: str) -> Snapshotter:
        own = name.removeprefix(_PREFIX).removeprefix("-") if name.startswith(_PREFIX) else name
        return super()._find(own)

    def _namespace(self, ctx: CallContext) -> str:
        del ctx
        return NAMESPACE

    def _lease(self, ctx: CallContext) -> str:
        del ctx
        return ""

    def prepare(
        self, request: pb.PrepareSnapshotRequest, ctx: CallContext
    ) -> pb.PrepareSnapshotResponse:
        request.labels[_ROOT] = NAMESPACE
        return super().prepare(request, ctx)

    def view(self, request: pb.ViewSnapshotRequest, ctx: CallContext) -> pb.ViewSnapshotResponse:
        request.labels[_ROOT] = NAMESPACE
        return super().view(request, ctx)

    def commit(self, request: pb.CommitSnapshotRequest, ctx: CallContext) -> Empty:
        request.labels[_ROOT] = NAMESPACE
        return super().commit(request, ctx)

    def update(
        self, request: pb.UpdateSnapshotRequest, ctx: CallContext
    ) -> pb.UpdateSnapshotResponse:
        request.info.labels[_ROOT] = NAMESPACE  # where all of them are replaced
        answer = super().update(request, ctx)
        answer.info.labels.pop(_ROOT, None)
        return answer

    def stat(self, request: pb.StatSnapshotRequest, ctx: CallContext) -> pb.StatSnapshotResponse:
        answer = super().stat(request, ctx)
        answer.info.labels.pop(_ROOT, None)
        return answer

    def list(
        self, request: pb.ListSnapshotsRequest, ctx: CallContext
    ) -> Iterator[pb.ListSnapshotsResponse]:
        for batch in self._list(request, ctx):
            for info in batch.info:
                info.labels.pop(_ROOT, None)
            yield batch
