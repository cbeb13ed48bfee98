"""Containers that were run detached with `--rm`: removed by the daemon when they end.

The client that started them has long gone; their label says what it wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orlop.containers import ContainerStore
from orlop.errors import NotFound, OrlopError
from orlop.events import Exchange
from orlop.namespaces.store import NamespaceStore
from orlop.rpc import CallContext
from orlop.runtime import TaskManager
from orlop.snapshots import Snapshotter
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.task_types_pb2 import STOPPED

LABEL = "orlop/auto-remove"
LOG_LABEL = "orlop/log-uri"

_WANTED = [f'labels."{LABEL}"==true']
_log = logging.getLogger(__name__)


class AutoRemover:
    """Removes labelled containers as their tasks end; its thread ends with `close`.

    Events are heard from the moment it is made; `start` looks for what ended before.
    """

    def __init__(
        self,
        exchange: Exchange,
        namespaces: NamespaceStore,
        containers: ContainerStore,
        tasks: TaskManager,
        snapshotters: Mapping[str, Snapshotter],
        logs: Path,
    ) -> None:
        self._namespaces = namespaces
        self._containers = containers
        self._tasks = tasks
        self._snapshotters = snapshotters
        self._logs = logs
        self._events = exchange.subscribe(['topic=="/tasks/exit"'])
        self._thread = threading.Thread(target=self._run, name="autoremove", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._events.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._sweep()
        for envelope in self._events:
            event = TaskExit.FromString(envelope.event.value)
            if event.id == event.container_id:
                self._remove(envelope.namespace, event.container_id)

    def _sweep(self) -> None:
        """Containers whose task ended, or was lost, while no daemon was there."""
        for namespace in self._namespaces.list():
            for container in self._containers.list(namespace.name, _WANTED):
                if self._has_ended(namespace.name, container.id):
                    self._remove(namespace.name, container.id)

    def _has_ended(self, namespace: str, container: str) -> bool:
        try:
            return self._tasks.get(namespace, container).state().status == STOPPED
        except NotFound:
            return True
        except OrlopError:
            return False  # it cannot tell; its exit event will

    def _remove(self, namespace: str, name: str) -> None:
        try:
            container = self._containers.get(namespace, name)
            if container.labels.get(LABEL) != "true":
                return
            with suppress(NotFound):
                self._tasks.delete(CallContext(namespace=namespace), namespace, name)
            self._containers.delete(namespace, name)
            snapshotter = self._snapshotters.get(container.snapshotter)
            if snapshotter is not None and container.snapshot_key:
                snapshotter.remove(namespace, container.snapshot_key)
            self._remove_log(container.labels.get(LOG_LABEL, ""))
        except NotFound:
            return  # somebody else was faster
        except OrlopError as error:
            _log.warning("namespace=%s container=%s cannot be removed: %s", namespace, name, error)

    def _remove_log(self, uri: str) -> None:
        """The log goes as well, if it is one of ours: a label could name any file."""
        path = Path(uri.removeprefix("file://")) if uri.startswith("file://") else None
        if path is not None and path.is_relative_to(self._logs) and ".." not in path.parts:
            path.unlink(missing_ok=True)
