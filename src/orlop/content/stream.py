"""A write as a conversation: requests come, each is answered."""

from __future__ import annotations

from orlop.content.store import ContentStore
from orlop.content.writer import ContentWriter
from orlop.errors import AlreadyExists, InvalidArgument
from orlop.rpc.convert import timestamp
from orlop.wire.services import content_pb2 as pb


class WriteStream:
    """One Write call on a writer. Total and expected digest hold from when they are said."""

    def __init__(self, store: ContentStore, writer: ContentWriter, lease: str) -> None:
        self._store = store
        self._writer = writer
        self._lease = lease
        self._total = 0
        self._expected = ""

    def answer(self, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
        """Do what a request says; its first one has been used to begin the write as well.

        Raises AlreadyExists (the write is then dropped) when the blob that is expected has appeared
        meanwhile, OutOfRange for data that is not for the current end.
        """
        writer = self._writer
        if request.ref and request.ref != writer.ref:
            raise InvalidArgument(f'write of ref "{writer.ref}" cannot go on as "{request.ref}"')
        self._total = request.total or self._total
        if request.expected:
            self._expect(request.expected)
        if request.action in (pb.WRITE, pb.COMMIT):
            # Offset 0 always means the beginning: what is there is dropped.
            writer.seek(request.offset)
            writer.write(request.data)
        digest = writer.digest()
        if request.action == pb.COMMIT:
            digest = writer.commit(self._total, self._expected, request.labels)
        return pb.WriteContentResponse(
            action=request.action,
            started_at=timestamp(writer.started_at),
            updated_at=timestamp(writer.updated_at),
            offset=writer.offset,
            total=self._total,
            digest=digest,
        )

    def _expect(self, digest: str) -> None:
        self._expected = digest
        writer = self._writer
        if self._store.supersede(writer.namespace, writer.ref, digest, self._lease):
            writer.close()
            raise AlreadyExists(f'content "{digest}"')
