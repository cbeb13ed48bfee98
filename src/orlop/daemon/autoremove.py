"""Containers that were run detached with `--rm`: removed by the daemon when they end.

The client that started them has long gone; their label says what it wanted.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orlop.containers import Container, ContainerStore
from orlop.errors import NotFound, OrlopError, ResourceExhausted
from orlop.events import Exchange, decoded
from orlop.logger import options as logger
from orlop.namespaces.store import NamespaceStore
from orlop.rpc import CallContext
from orlop.rpc.convert import nanoseconds
from orlop.runtime import TaskManager
from orlop.snapshots import Snapshotter
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.task_types_pb2 import STOPPED

LABEL = "orlop/auto-remove"
LOG_LABEL = "orlop/log-uri"

_WANTED = [f'labels."{LABEL}"==true']
_EXITS = ['topic=="/tasks/exit"']
_HANDS = 4  # a shim that hangs must not keep the others' containers
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
        self._exchange = exchange
        self._events = exchange.subscribe(_EXITS)
        self._thread: threading.Thread | None = None
        self._closing = CallContext()
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="autoremove")

    def start(self) -> None:
        """Call before clients are served: what has no task then is not just being made."""
        self._thread = threading.Thread(
            target=self._run, args=(self._labelled(),), name="autoremove", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._closing.cancel()
        self._events.close()
        if self._thread is not None:
            self._thread.join()
        self._hands.shutdown(wait=True, cancel_futures=True)

    def _run(self, before: list[tuple[str, str]]) -> None:
        """Remove what ended while no daemon was there, and then what ends."""
        for namespace, container in before:
            if self._has_ended(namespace, container):
                self._remove(namespace, container)
        while not self._closing.cancelled:
            try:
                for envelope in self._events:
                    event = decoded(envelope, TaskExit)
                    if event is not None and event.id == event.container_id:
                        self._remove(envelope.namespace, event.container_id, event)
            except ResourceExhausted:  # some were missed: see what has a task, and has ended
                self._events = self._exchange.subscribe(_EXITS)
                try:
                    missed = self._labelled()
                except OrlopError as error:
                    _log.warning("containers that have ended stay until the next start: %s", error)
                    continue
                for namespace, container in missed:
                    if self._has_ended(namespace, container, lost=False):
                        self._remove(namespace, container)

    def _labelled(self) -> list[tuple[str, str]]:
        return [
            (namespace.name, container.id)
            for namespace in self._namespaces.list()
            for container in self._containers.list(namespace.name, _WANTED)
        ]

    def _has_ended(self, namespace: str, container: str, *, lost: bool = True) -> bool:
        """Whether its task has ended; `lost` is the answer where there is no task."""
        try:
            return self._tasks.get(namespace, container).state().status == STOPPED
        except NotFound:
            return lost
        except OrlopError:
            return False  # it cannot tell; its exit event will

    def _remove(self, namespace: str, name: str, event: TaskExit | None = None) -> None:
        """Have a container removed that has ended; with an event, if that is about it."""
        try:
            container = self._containers.get(namespace, name)
        except NotFound:
            return
        except OrlopError as error:
            _log.warning("namespace=%s container=%s cannot be removed: %s", namespace, name, error)
            return
        if container.labels.get(LABEL) == "true" and (
            event is None or self._is_about(namespace, container, event)
        ):
            self._hands.submit(self._remove_all, namespace, container)

    def _is_about(self, namespace: str, container: Container, event: TaskExit) -> bool:
        """Whether an event, which may be late, is not of an earlier container of the name."""
        try:
            pid = self._tasks.get(namespace, container.id).pid
        except NotFound:
            pid = 0
        if pid and event.pid:
            return pid == event.pid
        return nanoseconds(event.exited_at) >= container.created_at

    def _remove_all(self, namespace: str, container: Container) -> None:
        name = container.id
        try:
            # Somebody else may be faster, and make another one.
            if self._is_another(namespace, container):
                return
            with suppress(NotFound):
                self._delete_task(namespace, name)
            if self._is_another(namespace, container):
                return
            self._containers.delete(namespace, name)
            snapshotter = self._snapshotters.get(container.snapshotter)
            if snapshotter is not None and container.snapshot_key:
                with suppress(NotFound):  # garbage, since the container went
                    snapshotter.remove(namespace, container.snapshot_key)
            self._remove_log(namespace, name, container.labels.get(LOG_LABEL, ""))
        except NotFound:
            return  # somebody else was faster
        except (OrlopError, OSError) as error:
            if self._closing.cancelled:
                return  # for the next daemon
            _log.warning("namespace=%s container=%s cannot be removed: %s", namespace, name, error)

    def _is_another(self, namespace: str, container: Container) -> bool:
        found = self._containers.get(namespace, container.id)
        return found.created_at != container.created_at

    def _delete_task(self, namespace: str, name: str) -> None:
        ctx = CallContext(namespace=namespace)
        self._closing.on_cancel(ctx.cancel)
        try:
            self._tasks.delete(ctx, namespace, name)
        finally:
            self._closing.forget(ctx.cancel)

    def _remove_log(self, namespace: str, name: str, uri: str) -> None:
        """The log goes as well, if it is the container's own: a label could name any file."""
        folder = self._logs / namespace / name
        writer = logger.of_uri(uri)
        path = Path(writer.path if writer is not None else unquote(urlsplit(uri).path))
        if path.parent == folder:
            shutil.rmtree(folder, ignore_errors=True)
