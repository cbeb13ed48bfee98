"""What a transfer that failed may leave behind: a lease that ends within the hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orlop.wire.services import leases_pb2
from tests.daemon_fixture import Orlopd

_LIFE = timedelta(hours=1, minutes=1)


def assert_only_brief_leases(orlopd: Orlopd) -> None:
    """Fail if anything is held for longer than for another try."""
    with orlopd.connect() as connection:
        leases = connection.leases.list(leases_pb2.ListRequest()).leases
    for lease in leases:
        end = datetime.fromisoformat(lease.labels["containerd.io/gc.expire"])
        assert end - datetime.now(UTC) < _LIFE, lease
