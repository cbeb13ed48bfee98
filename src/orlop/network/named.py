"""Named network namespaces as objects of the daemon: with labels, leases and events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from orlop.errors import FailedPrecondition, NotFound
from orlop.events import Publisher
from orlop.metadata import Database, Transaction, fieldmask, filters, labels
from orlop.metadata.references import (
    LEASED,
    attach_to_lease,
    detach_from_lease,
    ensure_namespace,
    namespace_is_gone,
)
from orlop.metadata.sweeping import Dead, Key
from orlop.network.namespaces import PinnedNamespaces
from orlop.wire.services.network_pb2 import NetNSCreate, NetNSDelete, NetNSUpdate

_log = logging.getLogger(__name__)
RESOURCE = "netns"
_KIND = "netns"


class Named(NamedTuple):
    """A network namespace with a name, where it is pinned, and its labels."""

    name: str
    path: Path
    labels: Mapping[str, str]


class NamedNamespaces:
    """The pins, and what the database has of them. The pin is the record: it ends with the host."""

    def __init__(self, pins: PinnedNamespaces, database: Database, publisher: Publisher) -> None:
        self.pins = pins
        self._db = database
        self._publisher = publisher
        self._changing = threading.Lock()

    def create(
        self, namespace: str, name: str, own: Mapping[str, str], *, lease: str = ""
    ) -> Named:
        """Make one; for a lease, it goes when none keeps it. Raises AlreadyExists, NotFound."""
        labels.validate(own)
        kept = {key: value for key, value in own.items() if value}
        if lease:
            kept[LEASED] = lease
        with self._changing:
            path = self._create(namespace, name, kept, lease)
        self._tell(namespace, "create", NetNSCreate(name=name, path=str(path), labels=kept))
        return Named(name, path, kept)

    def _create(self, namespace: str, name: str, kept: Mapping[str, str], lease: str) -> Path:
        """The pin last: of what a crash leaves without one `reap` takes the labels away."""
        self.pins.check_free(namespace, name)
        with self._db.write() as tx:
            ensure_namespace(tx, namespace)
            labels.replace(tx, _KIND, namespace, name, kept)
            attach_to_lease(tx, namespace, lease, RESOURCE, name)
        try:
            return self.pins.create(namespace, name)
        except BaseException:
            with self._db.write() as tx:
                labels.remove(tx, _KIND, namespace, name)
                detach_from_lease(tx, namespace, lease, RESOURCE, name)
            raise

    def list(self, namespace: str, wanted: Iterable[str] = ()) -> list[Named]:
        """Those that any of the filters match, by name; they see name and labels."""
        chosen = filters.parse(wanted)
        names = self.pins.names(namespace)
        with self._db.read() as tx:
            own = labels.get_all(tx, _KIND, namespace)
        found = (
            Named(name, self.pins.folder / namespace / name, own.get(name, {})) for name in names
        )
        return [
            each
            for each in found
            if chosen.matches(filters.record({"name": each.name}, labels=each.labels))
        ]

    def update(
        self, namespace: str, name: str, changed: Mapping[str, str], mask: FieldMask
    ) -> Named:
        """Change the labels that the mask names; raises NotFound and InvalidArgument."""
        named = fieldmask.paths(mask, fields=("labels",), maps=("labels",))
        path = self.pins.path(namespace, name)
        with self._db.write() as tx:
            merged = named.merge("labels", labels.get(tx, _KIND, namespace, name), changed)
            labels.validate(merged)
            labels.replace(tx, _KIND, namespace, name, merged)
        self._tell(namespace, "update", NetNSUpdate(name=name, labels=merged))
        return Named(name, path, merged)

    def delete(self, namespace: str, name: str) -> None:
        """Give up a name: the namespace ends with its last process. Raises NotFound."""
        with self._changing:
            self.pins.delete(namespace, name)
            with self._db.write() as tx:
                labels.remove(tx, _KIND, namespace, name)
        self._tell(namespace, "delete", NetNSDelete(name=name))

    def collect(self, keys: Iterable[Key], dead: Dead) -> int:
        """Give up those that were made for a lease and that nothing keeps; how many.

        One that the host does not let go of stays, and keeps no other.
        """
        removed = 0
        for namespace, name in keys:
            try:
                if not self._collect(namespace, name, dead):
                    continue
            except FailedPrecondition as error:
                _log.warning("namespace=%s stays: %s", namespace, error)
                continue
            self._tell(namespace, "delete", NetNSDelete(name=name))
            removed += 1
        return removed

    def _collect(self, namespace: str, name: str, dead: Dead) -> bool:
        """Give one up while nobody else can take it; who is killed here leaves labels to `reap`."""
        with self._db.write() as tx:
            if not dead(tx, namespace, name):
                return False
            try:
                self.pins.delete(namespace, name)
            except NotFound:  # somebody was faster
                return False
            labels.remove(tx, _KIND, namespace, name)
        return True

    def leave_namespace(self, namespace: str) -> None:
        """A namespace of the daemon has gone, unless it is there again: so does what it had."""
        keys = [(namespace, name) for name in self.pins.names(namespace)]
        self.collect(keys, namespace_is_gone)

    def leave_gone(self) -> None:
        """Namespaces may have gone while nobody heard of it."""
        for namespace in self.pins.namespaces():
            self.leave_namespace(namespace)

    def reap(self) -> None:
        """Forget what is no more, after the host has been started anew or a crash."""
        self.pins.reap()
        with self._db.write() as tx:
            for namespace, name in tx.all(
                "SELECT DISTINCT namespace, owner FROM labels WHERE kind = ?", (_KIND,)
            ):
                self._forget_if_gone(tx, namespace, name)

    def _forget_if_gone(self, tx: Transaction, namespace: str, name: str) -> None:
        try:
            self.pins.path(namespace, name)
        except NotFound:
            labels.remove(tx, _KIND, namespace, name)

    def _tell(self, namespace: str, what: str, event: Message) -> None:
        self._publisher.publish(namespace, f"/network/netns/{what}", event)
