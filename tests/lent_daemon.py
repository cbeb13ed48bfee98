"""An orlopd for one test after the other, as long as each leaves it as it found it.

To start one takes the processors longer than most tests take. What a test could see of those
before it is looked at after each: what runs, what the log says, the records, and every file.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from orlop.client import Connection
from orlop.errors import FailedPrecondition, NotFound, OrlopError
from orlop.wire.services.containers_pb2 import DeleteContainerRequest, ListContainersRequest
from orlop.wire.services.images_pb2 import DeleteImageRequest, ListImagesRequest
from orlop.wire.services.leases_pb2 import CreateRequest, DeleteRequest, ListRequest
from orlop.wire.services.namespaces_pb2 import DeleteNamespaceRequest, ListNamespacesRequest
from tests.daemon_fixture import Orlopd, remove_namespace
from tests.patience import patient

PASSED = pytest.StashKey[bool]()
"""Whether all that has run of a test until now has passed; see `conftest`."""

_TURNS = 20  # then the daemon ends, with what the last test has left in it
_OWN = ("orlopd", "orlop-fork", "orlop-spare", "orlop-shim-hand", "orlop-network")
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_GOODBYE = 15  # seconds that a shim may take once its container is deleted
_SETTLED = 3  # seconds for what the daemon clears away in its own time
_ANSWER = patient(30)


class LentOrlopd(Orlopd):
    """Runs from its first `lend` on, for as long as `take_back` says."""

    def __init__(self, config: str = "") -> None:
        super().__init__()
        if config:
            file = self.folder / "config.toml"
            file.write_text(config)
            self.options = ["--config", str(file)]
        self._name, self._turn = self.namespace, 0

    def lend(self) -> None:
        """For a test of its own: in another namespace, with an empty log."""
        if not self._turn:
            self.start()
            self._first, self._with = self._process, list(self.options)
            self._before = self._traces()
        assert self.runs, f"orlopd ended while nobody had it\n{self.log.read_text()}"
        self.namespace = f"{self._name}-{self._turn}"
        self._turn += 1
        self.folder.chmod(0o700)
        os.truncate(self.log, 0)

    def take_back(self) -> bool:
        """Whether another test may have it. Fails the test that has left something running."""
        if self._process is not self._first or not self.runs or self.options != self._with:
            return False
        left: dict[str, list[str]] = {}

        def settled() -> bool:
            nonlocal left
            left = self._strangers()
            return not left

        with suppress(AssertionError):
            self.wait_for(settled, _GOODBYE)
        assert not left, f"left with orlopd: {left}\n{self.log.read_text()}"
        if self._turn == _TURNS:
            return False
        try:
            self._wipe()
            self.wait_for(lambda: self._traces() == self._before, _SETTLED)
        except (OrlopError, AssertionError) as error:
            found, before = self._traces(), self._before
            warnings.warn(f"not lent again, {error}: {found ^ before}", stacklevel=1)
            return False
        log = self.log.read_text()
        assert "Traceback" not in log, log
        return True

    def _strangers(self) -> dict[str, list[str]]:
        """What is left of a test, by kind."""
        found = self.leftovers()
        layers = f" {self.root}/snapshots/"  # those that are images are mounted for all
        mounts = [each for each in found.pop("mounts", []) if layers not in each]
        processes = found.pop("processes", [])
        names = Counter(each.partition(" ")[2] for each in processes)
        if all(name in _OWN and number == 1 for name, number in names.items()):
            processes = []
        sockets = [each for each in found.pop("sockets", []) if not each.startswith(self.address)]
        found |= {"processes": processes, "sockets": sockets, "mounts": mounts}
        return {kind: items for kind, items in found.items() if items}

    def _traces(self) -> set[str]:
        """All files but locks, all folders of snapshots, all mounts and records."""
        found = set(self.leftovers().get("mounts", []))
        for parent, folders, names in os.walk(self.folder):
            found |= {f"{parent}/{name}" for name in names if not name.endswith(".lock")}
            if parent.startswith(f"{self.root}/snapshots/"):
                found |= {f"{parent}/{name}" for name in folders}
        database = sqlite3.connect(f"file:{self.root}/metadata.db?mode=ro", uri=True)
        with closing(database):
            for (table,) in database.execute(_TABLES).fetchall():
                ((number,),) = database.execute(f'SELECT count(*) FROM "{table}"').fetchall()
                found.add(f"{table}: {number}")
        return found

    def _wipe(self) -> None:
        """Delete what keeps anything, in all namespaces; the rest is garbage, and collected."""
        with self.connect() as connection:
            found = connection.namespaces.list(ListNamespacesRequest(), timeout=_ANSWER).namespaces
        for namespace in [each.name for each in found]:
            with self.connect(namespace) as connection:
                _wipe(connection, namespace)
            remove_namespace(namespace)


def _wipe(of: Connection, namespace: str) -> None:
    for container in of.containers.list(ListContainersRequest(), timeout=_ANSWER).containers:
        of.containers.delete(DeleteContainerRequest(id=container.id), timeout=_ANSWER)
    for image in of.images.list(ListImagesRequest(), timeout=_ANSWER).images:
        of.images.delete(DeleteImageRequest(name=image.name), timeout=_ANSWER)
    for lease in of.leases.list(ListRequest(), timeout=_ANSWER).leases:
        of.leases.delete(DeleteRequest(id=lease.id), timeout=_ANSWER)
    of.leases.create(CreateRequest(id="last"), timeout=_ANSWER)
    of.leases.delete(DeleteRequest(id="last", sync=True), timeout=_ANSWER)
    with suppress(NotFound, FailedPrecondition):  # what is not empty is seen later
        of.namespaces.delete(DeleteNamespaceRequest(name=namespace), timeout=_ANSWER)


class Lender:
    """Has those that nobody has just now, by their configuration; `close` at the end of all."""

    def __init__(self) -> None:
        self._idle: dict[str, LentOrlopd] = {}

    def lend(self, test: pytest.Item, config: str = "") -> Iterator[Orlopd]:
        """A running orlopd for one test, checked at its end; `config` is the text of its file.

        A test that is marked `fresh` gets one that nobody has had, and is the last to have it.
        """
        fresh = test.get_closest_marker("fresh") is not None
        idle = None if fresh else self._idle.pop(config, None)
        daemon = idle or LentOrlopd(config)
        try:
            daemon.lend()
            yield daemon
            if not fresh and test.stash[PASSED] and daemon.take_back():
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
