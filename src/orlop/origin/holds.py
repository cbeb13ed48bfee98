"""What was pushed and has no image yet: leases hold it for a day or two.

The lease of a repository and a day ends when the day after it does, so it never needs to be
renewed: every push of a day uses that day's, and what was pushed yesterday counts as well. What a
kill leaves is held likewise.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from orlop.content import ContentStore
from orlop.errors import AlreadyExists, NotFound
from orlop.leases.model import Resource
from orlop.leases.store import LeaseStore

_PREFIX = "registry-push/"
_EXPIRES = "containerd.io/gc.expire"
_DAY = timedelta(days=1)


class Holds:
    """The leases of pushes into one namespace."""

    def __init__(self, leases: LeaseStore, content: ContentStore, namespace: str) -> None:
        self._leases = leases
        self._content = content
        self._namespace = namespace

    def lease(self, repository: str) -> str:
        """The lease for what is pushed to a repository now."""
        today = _today()
        lease = _id(today, repository)
        end = (today + 2 * _DAY).isoformat().replace("+00:00", "Z")
        try:
            self._leases.create(self._namespace, lease, {_EXPIRES: end})
        except AlreadyExists:
            return lease
        self.sweep()
        return lease

    def content(self, repository: str) -> set[str]:
        """The digests of the blobs that are held for a repository."""
        found: set[str] = set()
        for day in _days():
            with suppress(NotFound):
                held = self._leases.resources(self._namespace, _id(day, repository))
                found.update(each.id for each in held if each.type == "content")
        return found

    def has(self, repository: str, digest: str) -> bool:
        """Whether a blob is held for a repository."""
        blob = Resource("content", digest)
        return any(
            self._leases.keeps(self._namespace, _id(day, repository), blob) for day in _days()
        )

    def release(self, repository: str, digest: str) -> None:
        """Hold a blob no longer."""
        for day in _days():
            with suppress(NotFound):
                self._leases.delete_resource(
                    self._namespace, _id(day, repository), Resource("content", digest)
                )

    def sweep(self) -> None:
        """Give up the uploads of leases that have ended, and the leases."""
        kept = {_id(day, "") for day in _days()}
        for lease in self._leases.list(self._namespace):
            day = lease.id[: len(_id(_today(), ""))]
            if not lease.id.startswith(_PREFIX) or day in kept:
                continue
            with suppress(NotFound):
                for resource in self._leases.resources(self._namespace, lease.id):
                    if resource.type == "ingests":
                        with suppress(NotFound):
                            self._content.abort(self._namespace, resource.id)
                self._leases.delete(self._namespace, lease.id)


def _today() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )


def _days() -> tuple[datetime, datetime]:
    return _today(), _today() - _DAY


def _id(day: datetime, repository: str) -> str:
    return f"{_PREFIX}{day:%Y-%m-%d}/{repository}"
