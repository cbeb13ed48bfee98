"""The snapshots service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.empty_pb2 import Empty

from orlop.errors import InvalidArgument
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.rpc.encoding import Encoded, batches
from orlop.snapshots.model import Info, Kind
from orlop.snapshots.snapshotter import Snapshotter
from orlop.sys.mount import Mount
from orlop.wire.services import snapshots_pb2 as pb
from orlop.wire.types_pb2 import Mount as WireMount

_BATCH = 100


class SnapshotsService(Service):
    """Serves every snapshotter by its name; "" is the default one."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Snapshots"]

    def __init__(self, snapshotters: Mapping[str, Snapshotter], default: str) -> None:
        self._snapshotters = snapshotters
        self._default = default

    def _find(self, name: str) -> Snapshotter:
        found = self._snapshotters.get(name or self._default)
        if found is None:
            known = ", ".join(sorted(self._snapshotters))
            raise InvalidArgument(f'snapshotter "{name}" is not loaded; there are {known}')
        return found

    def _namespace(self, ctx: CallContext) -> str:
        return ctx.require_namespace()

    def _lease(self, ctx: CallContext) -> str:
        return ctx.lease

    def prepare(
        self, request: pb.PrepareSnapshotRequest, ctx: CallContext
    ) -> pb.PrepareSnapshotResponse:
        mounts = self._find(request.snapshotter).prepare(
            self._namespace(ctx), request.key, request.parent, request.labels, self._lease(ctx)
        )
        return pb.PrepareSnapshotResponse(mounts=_wire(mounts))

    def view(self, request: pb.ViewSnapshotRequest, ctx: CallContext) -> pb.ViewSnapshotResponse:
        mounts = self._find(request.snapshotter).view(
            self._namespace(ctx), request.key, request.parent, request.labels, self._lease(ctx)
        )
        return pb.ViewSnapshotResponse(mounts=_wire(mounts))

    def mounts(self, request: pb.MountsRequest, ctx: CallContext) -> pb.MountsResponse:
        mounts = self._find(request.snapshotter).mounts(self._namespace(ctx), request.key)
        return pb.MountsResponse(mounts=_wire(mounts))

    def commit(self, request: pb.CommitSnapshotRequest, ctx: CallContext) -> Empty:
        self._find(request.snapshotter).commit(
            self._namespace(ctx),
            request.name,
            request.key,
            request.labels,
            self._lease(ctx),
            request.parent,
        )
        return Empty()

    def remove(self, request: pb.RemoveSnapshotRequest, ctx: CallContext) -> Empty:
        self._find(request.snapshotter).remove(self._namespace(ctx), request.key)
        return Empty()

    def stat(self, request: pb.StatSnapshotRequest, ctx: CallContext) -> pb.StatSnapshotResponse:
        info = self._find(request.snapshotter).stat(self._namespace(ctx), request.key)
        return pb.StatSnapshotResponse(info=_info(info))

    def update(
        self, request: pb.UpdateSnapshotRequest, ctx: CallContext
    ) -> pb.UpdateSnapshotResponse:
        wanted = Info(request.info.name, "", Kind.ACTIVE, 0, 0, dict(request.info.labels))
        info = self._find(request.snapshotter).update(
            self._namespace(ctx), wanted, request.update_mask
        )
        return pb.UpdateSnapshotResponse(info=_info(info))

    def list(
        self, request: pb.ListSnapshotsRequest, ctx: CallContext
    ) -> Iterator[pb.ListSnapshotsResponse | Encoded]:
        if request.filters:
            return self._list(request, ctx)
        return batches(self._find(request.snapshotter).listing(self._namespace(ctx)))

    def _list(
        self, request: pb.ListSnapshotsRequest, ctx: CallContext
    ) -> Iterator[pb.ListSnapshotsResponse]:
        """As messages, which can be chosen from and changed."""
        found = self._find(request.snapshotter).list(self._namespace(ctx), request.filters)
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            yield pb.ListSnapshotsResponse(info=[_info(info) for info in batch])

    def usage(self, request: pb.UsageRequest, ctx: CallContext) -> pb.UsageResponse:
        usage = self._find(request.snapshotter).usage(self._namespace(ctx), request.key)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    def cleanup(self, request: pb.CleanupRequest, ctx: CallContext) -> Empty:
        self._namespace(ctx)
        self._find(request.snapshotter).cleanup()
        return Empty()


def _wire(mounts: list[Mount]) -> list[WireMount]:
    return [
        WireMount(type=m.type, source=m.source, target=m.target, options=m.options) for m in mounts
    ]


def _info(info: Info) -> pb.Info:
    return pb.Info(
        name=info.name,
        parent=info.parent,
        kind=pb.Kind.Name(info.kind),
        created_at=timestamp(info.created_at),
        updated_at=timestamp(info.updated_at),
        labels=info.labels,
    )
