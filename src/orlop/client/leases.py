"""Hold what a job creates until something else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orlop.client.connection import Connection
from orlop.wire.services import leases_pb2


@contextmanager
def held(connection: Connection) -> Iterator[Connection]:
    """The connection with a lease of its own, which goes at the end."""
    lease = connection.leases.create(leases_pb2.CreateRequest()).lease.id
    try:
        yield connection.with_lease(lease)
    finally:
        connection.leases.delete(leases_pb2.DeleteRequest(id=lease))
