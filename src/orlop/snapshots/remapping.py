"""Copies of snapshots whose files have other owners, where mounts cannot show them so.

As containerd's clients make them: a committed snapshot on the one that it is a copy of, made once
for each mapping, on which containers' snapshots then are.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, OrlopError
from orlop.snapshots.model import Kind
from orlop.snapshots.shelf import REF_LABEL
from orlop.snapshots.snapshotter import Snapshotter
from orlop.sys.idmap import IdMapping
from orlop.sys.mount import Mount
from orlop.turns import Turns

# Changes the owners of all files that mounts show.
ChangeOwners = Callable[[Sequence[Mount], IdMapping], None]

_log = logging.getLogger(__name__)


class Remapper:
    """Makes copies in a snapshotter; nobody makes one twice at the same time."""

    def __init__(self, store: Snapshotter, change: ChangeOwners) -> None:
        self._store = store
        self._change = change
        self._turns = Turns()

    def copy_of(self, namespace: str, parent: str, mapping: IdMapping, lease: str) -> str:
        """The key of the copy of a committed snapshot, which is made if it is not there.

        It stays as long as the other. Raises what `Prepare` does, and InvalidArgument for files
        whose owners are not mapped.
        """
        name = f"{parent}-{mapping.name}"
        with self._turns.take((namespace, name)):
            try:
                self._store.stat(namespace, name)
            except NotFound:
                self._make(namespace, parent, name, mapping, lease)
        return name

    def _make(self, namespace: str, parent: str, name: str, mapping: IdMapping, lease: str) -> None:
        _log.info('snapshotter=%s copying "%s" for other owners', self._store.name, parent)
        for each in self._store.list(namespace):  # of a daemon that was killed over it
            if each.kind is Kind.ACTIVE and each.labels.get(REF_LABEL) == name:
                with suppress(NotFound):
                    self._store.remove(namespace, each.name)
        key = f"{name}-{secrets.token_hex(4)}"
        stays = {f"containerd.io/gc.bref.snapshot.{self._store.name}": parent}
        with suppress(AlreadyExists):  # a client has made it meanwhile
            kept = {} if lease else stays  # or a collection would take it meanwhile
            wanted = {REF_LABEL: name, **kept}
            mounts = self._store.prepare(namespace, key, parent, wanted, lease)
            try:
                self._change(mounts, mapping)
                self._store.commit(namespace, name, key, stays, lease)
            except BaseException as error:
                with suppress(OrlopError):
                    self._store.remove(namespace, key)
                if isinstance(error, InvalidArgument):
                    raise InvalidArgument(f'snapshot "{parent}": {error.message}') from None
                raise
