"""An orlopd for one test after the other, as long as each leaves it as it found it.

To start one takes the processors longer than most tests take. What a test may not see of those
before it is looked at after each: what runs, what the log says, the records, and every file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count

from orlop.client import Connection
from orlop.errors import FailedPrecondition, NotFound
from orlop.wire.services.containers_pb2 import DeleteContainerRequest, ListContainersRequest
from orlop.wire.services.images_pb2 import DeleteImageRequest, ListImagesRequest
from orlop.wire.services.leases_pb2 import CreateRequest, DeleteRequest, ListRequest
from orlop.wire.services.namespaces_pb2 import DeleteNamespaceRequest, ListNamespacesRequest
from tests.daemon_fixture import Orlopd, remove_namespace

# Who runs for the daemon, not for a test; what they hold, such as mounts, goes with its records.
_OWN = {"orlopd", "orlop-fork", "orlop-spare", "orlop-shim-hand", "orlop-network"}
_GOODBYE = 15  # a shim takes a moment to say goodbye after its container is deleted
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_SETTLED = 1  # seconds for what the daemon clears away in its own time


class LentOrlopd(Orlopd):
    """Runs from its first `lend` on, for as long as `take_back` says."""

    def __init__(self, config: str = "") -> None:
        super().__init__()
        if config:
            file = self.folder / "config.toml"
            file.write_text(config)
            self.options = ["--config", str(file)]
        self._name, self._turns = self.namespace, count()

    def lend(self) -> None:
        """For a test of its own: in another namespace, with an empty log."""
        if self._process is None:
            self.start()
            self._first, self._with = self._process, list(self.options)
            self._before = self._traces()
        self.namespace = f"{self._name}-{next(self._turns)}"
        os.truncate(self.log, 0)

    def take_back(self) -> bool:
        """Whether another test may have it. Fails the test that has left something running."""
        if self._process is not self._first or not self.runs or self.options != self._with:
            return False
        with suppress(AssertionError):
            self.wait_for(lambda: not self._strangers(), _GOODBYE)
        left = self._strangers()
        log = self.log.read_text()
        assert not left, f"left with orlopd: {left}\n{log}"
        assert "Traceback" not in log, log
        self._wipe()
        remove_namespace(self.namespace)
        try:
            self.wait_for(lambda: self._traces() == self._before, _SETTLED)
        except AssertionError:
            return False
        return True

    def _strangers(self) -> dict[str, list[str]]:
        """What is left of a test, by kind."""
        found = self.leftovers()
        layers = f" {self.root}/snapshots/"  # those that are images
        mounts = [each for each in found.pop("mounts", []) if layers not in each]
        processes = [each for each in found.pop("processes", []) if each.split()[1] not in _OWN]
        sockets = [each for each in found.pop("sockets", []) if not each.startswith(self.address)]
        found |= {"processes": processes, "sockets": sockets, "mounts": mounts}
        return {kind: items for kind, items in found.items() if items}

    def _traces(self) -> tuple[set[str], list[str], dict[str, int]]:
        """The files that there are but locks, mounts, and how many records of each kind."""
        walked = ((parent, name) for parent, _, names in os.walk(self.folder) for name in names)
        files = {f"{parent}/{name}" for parent, name in walked if not name.endswith(".lock")}
        database = sqlite3.connect(f"file:{self.root}/metadata.db?mode=ro", uri=True)
        with closing(database):
            records = {
                table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
                for (table,) in database.execute(_TABLES).fetchall()
            }
        return files, self.leftovers().get("mounts", []), records

    def _wipe(self) -> None:
        """Delete what keeps anything, in all namespaces; the rest is garbage, and collected."""
        with self.connect() as connection:
            found = connection.namespaces.list(ListNamespacesRequest()).namespaces
        for namespace in [each.name for each in found]:
            with self.connect(namespace) as connection:
                _wipe(connection)
                with suppress(NotFound, FailedPrecondition):  # what is not empty is seen later
                    connection.namespaces.delete(DeleteNamespaceRequest(name=namespace))


def _wipe(connection: Connection) -> None:
    for container in connection.containers.list(ListContainersRequest()).containers:
        connection.containers.delete(DeleteContainerRequest(id=container.id))
    for image in connection.images.list(ListImagesRequest()).images:
        connection.images.delete(DeleteImageRequest(name=image.name))
    for lease in connection.leases.list(ListRequest()).leases:
        connection.leases.delete(DeleteRequest(id=lease.id))
    connection.leases.create(CreateRequest(id="last"))
    connection.leases.delete(DeleteRequest(id="last", sync=True))


class Lender:
    """Has those that nobody has just now, by their configuration; `close` at the end of all."""

    def __init__(self) -> None:
        self._idle: dict[str, LentOrlopd] = {}

    def lend(self, config: str = "") -> Iterator[Orlopd]:
        """A running orlopd for one test, checked at its end; `config` is the text of its file."""
        daemon = self._idle.pop(config, None) or LentOrlopd(config)
        try:
            daemon.lend()
            yield daemon
            if daemon.take_back():
                self._idle[config] = daemon
            else:
                daemon.close()
        finally:
            if self._idle.get(config) is not daemon:
                daemon.discard()

    def close(self) -> None:
        with ExitStack() as stack:
            for daemon in self._idle.values():
                stack.callback(daemon.discard)
                stack.callback(daemon.close)
