"""The lease that holds what a transfer brings until something of its own refers to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from orlop.errors import NotFound
from orlop.leases.store import LeaseStore

_LIFE = timedelta(hours=24)
_EXPIRE = "containerd.io/gc.expire"


@contextmanager
def holding(leases: LeaseStore, namespace: str, given: str) -> Iterator[str]:
    """The lease `given`, or without one a lease that ends with the context."""
    if given:
        yield given
        return
    expires = (datetime.now(UTC) + _LIFE).isoformat(timespec="seconds")
    lease = leases.create(namespace, "", {_EXPIRE: expires})
    try:
        yield lease.id
    finally:
        with suppress(NotFound):
            leases.delete(namespace, lease.id)
