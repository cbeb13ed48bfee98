"""The lease that holds what a transfer brings until something of its own refers to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from orlop.errors import Cancelled, DeadlineExceeded, NotFound, Unavailable
from orlop.leases.store import LeaseStore

_LIFE = timedelta(hours=24)
_AFTERLIFE = timedelta(hours=1)
_EXPIRE = "containerd.io/gc.expire"
# Another try may succeed, and should find what this one has brought.
_PASSING = (Cancelled, DeadlineExceeded, Unavailable)


@contextmanager
def holding(
    leases: LeaseStore, namespace: str, given: str, *, patient: bool = False
) -> Iterator[str]:
    """The lease `given`, or without one a lease that ends with the context.

    A `patient` one stays for an hour after a failure that may pass, with what was brought.
    """
    if given:
        yield given
        return
    lease = leases.create(namespace, "", {_EXPIRE: _in(_LIFE)}).id
    try:
        yield lease
    except _PASSING:
        with suppress(NotFound):
            if patient and leases.resources(namespace, lease):
                leases.relabel(namespace, lease, {_EXPIRE: _in(_AFTERLIFE)})
                lease = ""
        raise
    finally:
        if lease:
            with suppress(NotFound):
                leases.delete(namespace, lease)


def _in(time: timedelta) -> str:
    return (datetime.now(UTC) + time).isoformat(timespec="seconds")
