"""Small blobs: documents, and what is stored beside them."""

from __future__ import annotations

from collections.abc import Mapping

from orlop.client.connection import Connection
from orlop.errors import AlreadyExists
from orlop.oci.digest import Digest
from orlop.wire.services import content_pb2
from orlop.wire.types_pb2 import Descriptor


def write(
    connection: Connection, data: bytes, media_type: str, labels: Mapping[str, str] | None = None
) -> Descriptor:
    """Store `data`; labels are those of a new blob only."""
    digest = str(Digest.of(data))
    request = content_pb2.WriteContentRequest(
        action=content_pb2.COMMIT,
        ref=f"blob-{digest}",
        total=len(data),
        expected=digest,
        data=data,
        labels=labels or {},
    )
    try:
        list(connection.content.write(iter([request])))
    except AlreadyExists:
        pass
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def labels_of(connection: Connection, digest: str) -> dict[str, str]:
    """The labels of a blob; raises NotFound."""
    return dict(connection.content.info(content_pb2.InfoRequest(digest=digest)).info.labels)
