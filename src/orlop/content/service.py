"""The content service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from google.protobuf.empty_pb2 import Empty

from orlop.content.model import Info, Status
from orlop.content.store import ContentStore
from orlop.content.stream import WriteStream
from orlop.errors import DataLoss, InvalidArgument, OutOfRange
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import timestamp
from orlop.rpc.encoding import Encoded, batches
from orlop.wire.services import content_pb2 as pb

# Larger answers make the allocator return memory to the kernel after each, which halves the speed.
_CHUNK = 256 << 10
_BATCH = 100


class ContentService(Service):
    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Content"]

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def info(self, request: pb.InfoRequest, ctx: CallContext) -> pb.InfoResponse:
        info = self._store.info(ctx.require_namespace(), request.digest)
        return pb.InfoResponse(info=_info(info))

    def update(self, request: pb.UpdateRequest, ctx: CallContext) -> pb.UpdateResponse:
        info = self._store.update(
            ctx.require_namespace(), request.info.digest, request.info.labels, request.update_mask
        )
        return pb.UpdateResponse(info=_info(info))

    def list(
        self, request: pb.ListContentRequest, ctx: CallContext
    ) -> Iterator[pb.ListContentResponse | Encoded]:
        if not request.filters:
            yield from batches(self._store.listing(ctx.require_namespace()))
            return
        found = self._store.list(ctx.require_namespace(), request.filters)
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            yield pb.ListContentResponse(info=[_info(info) for info in batch])

    def delete(self, request: pb.DeleteContentRequest, ctx: CallContext) -> Empty:
        self._store.delete(ctx.require_namespace(), request.digest)
        return Empty()

    def read(
        self, request: pb.ReadContentRequest, ctx: CallContext
    ) -> Iterator[pb.ReadContentResponse]:
        with self._store.open(ctx.require_namespace(), request.digest) as blob:
            start = max(0, request.offset)
            if start > blob.size:
                raise OutOfRange(
                    f'content "{request.digest}" has {blob.size} bytes, none at offset {start}'
                )
            end = min(blob.size, start + request.size) if request.size > 0 else blob.size
            for position in range(start, end, _CHUNK):
                ctx.check()
                data = os.pread(blob.fd, min(_CHUNK, end - position), position)
                if not data:
                    raise DataLoss(f'content "{request.digest}" ends at byte {position}')
                yield pb.ReadContentResponse(offset=position - start, data=data)

    def status(self, request: pb.StatusRequest, ctx: CallContext) -> pb.StatusResponse:
        status = self._store.status(ctx.require_namespace(), request.ref)
        return pb.StatusResponse(status=_status(status))

    def list_statuses(
        self, request: pb.ListStatusesRequest, ctx: CallContext
    ) -> pb.ListStatusesResponse:
        found = self._store.statuses(ctx.require_namespace(), request.filters)
        return pb.ListStatusesResponse(statuses=[_status(status) for status in found])

    def abort(self, request: pb.AbortRequest, ctx: CallContext) -> Empty:
        self._store.abort(ctx.require_namespace(), request.ref)
        return Empty()

    def write(
        self, requests: Iterator[pb.WriteContentRequest], ctx: CallContext
    ) -> Iterator[pb.WriteContentResponse]:
        namespace = ctx.require_namespace()
        first = next(requests, None)
        if first is None or not first.ref:
            raise InvalidArgument("first message of a write must name a ref")
        with self._store.writer(
            namespace, first.ref, total=first.total, expected=first.expected, lease=ctx.lease
        ) as writer:
            stream = WriteStream(self._store, writer, ctx.lease)
            for request in chain([first], requests):
                ctx.check()
                response = stream.answer(request)
                yield response
                if request.action == pb.COMMIT:
                    break
            yield response  # clients of this API get the last answer twice


def _info(info: Info) -> pb.Info:
    return pb.Info(
        digest=info.digest,
        size=info.size,
        created_at=timestamp(info.created_at),
        updated_at=timestamp(info.updated_at),
        labels=info.labels,
    )


def _status(status: Status) -> pb.Status:
    return pb.Status(
        ref=status.ref,
        offset=status.offset,
        total=status.total,
        expected=status.expected,
        started_at=timestamp(status.started_at),
        updated_at=timestamp(status.updated_at),
    )
