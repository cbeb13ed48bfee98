"""Hold what a job creates until something else does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orlop.client.connection import Connection
from orlop.errors import NotFound
from orlop.wire.services import leases_pb2

_LIFE = 24 * 3600
_EXPIRE = "containerd.io/gc.expire"


@contextmanager
def held(connection: Connection) -> Iterator[Connection]:
    """The connection with a lease of its own, which goes at the end, or after a day."""
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LIFE))
    request = leases_pb2.CreateRequest(labels={_EXPIRE: expires})
    lease = connection.leases.create(request).lease.id
    try:
        yield connection.with_lease(lease)
    finally:
        with suppress(NotFound):
            connection.leases.delete(leases_pb2.DeleteRequest(id=lease))


def hold(connection: Connection, kind: str, name: str) -> None:
    """Have the lease of the connection hold what is there already."""
    resource = leases_pb2.Resource(type=kind, id=name)
    connection.leases.add_resource(
        leases_pb2.AddResourceRequest(id=connection.lease, resource=resource)
    )


def collect(connection: Connection) -> None:
    """Wait until what nothing keeps is gone."""
    lease = connection.leases.create(leases_pb2.CreateRequest()).lease.id
    connection.leases.delete(leases_pb2.DeleteRequest(id=lease, sync=True))
