"""Containers that were run with `--rm`: removed by the daemon when they end.

The client that started them has gone; their label says what it wanted. One that is still attached
does it itself, once it has the exit status: it is given time, for as long as it lives. So is one
that restarts the container.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orlop.containers import Container, ContainerStore
from orlop.errors import NotFound, OrlopError
from orlop.events import Exchange, Listener, decoded
from orlop.logger import options as logger
from orlop.namespaces.store import NamespaceStore
from orlop.rpc import CallContext
from orlop.rpc.convert import nanoseconds
from orlop.rpc.reactor import Reactor
from orlop.runtime import TaskManager
from orlop.snapshots import Snapshotter
from orlop.sys.process import is_alive
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.task_types_pb2 import STOPPED, UNKNOWN, Status
from orlop.wire.types_pb2 import Envelope

LABEL = "orlop/auto-remove"
LOG_LABEL = "orlop/log-uri"

_BY_DAEMON, _BY_CLIENT, _RESTARTING = "true", "client:", "restarting:"
_WANTED = [f'labels."{LABEL}"']
_CLIENT_PATIENCE = 2.0
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
        reactor: Reactor,
    ) -> None:
        self._namespaces = namespaces
        self._containers = containers
        self._tasks = tasks
        self._snapshotters = snapshotters
        self._logs = logs
        self._reactor = reactor
        self._closing = CallContext()
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="autoremove")
        self._listener = Listener(
            exchange, "autoremove", ["/tasks/exit"], self._heard, self._remove_missed
        )

    def start(self) -> None:
        """Call before clients are served: what has no task then is not just being made."""
        before = self._labelled()
        self._listener.start(lambda: self._remove_ended(before, lost=STOPPED))

    def stop(self) -> None:
        """The daemon is ending: what cannot be removed any more is left to the next one."""
        self._closing.cancel()

    def close(self) -> None:
        self.stop()
        self._listener.close()
        self._hands.shutdown(wait=True, cancel_futures=True)

    def _heard(self, envelope: Envelope) -> None:
        event = decoded(envelope, TaskExit)
        if event is None or event.id != event.container_id:
            return
        namespace = envelope.namespace
        try:
            container = self._containers.get(namespace, event.id)
        except NotFound:
            return
        if _concerns(container) and self._is_about(namespace, container, event):
            self._remove(namespace, container)

    def _remove_missed(self) -> None:
        # What has no task may just be being made.
        self._remove_ended(self._labelled(), lost=UNKNOWN)

    def _remove_ended(self, found: list[tuple[str, Container]], *, lost: Status) -> None:
        """What cannot be told of a task, its exit event will tell."""
        for namespace, container in found:
            if self._status(namespace, container.id, lost=lost) == STOPPED:
                self._remove(namespace, container)

    def _labelled(self) -> list[tuple[str, Container]]:
        return [
            (namespace.name, container)
            for namespace in self._namespaces.list()
            for container in self._containers.list(namespace.name, _WANTED)
            if _concerns(container)
        ]

    def _status(self, namespace: str, container: str, *, lost: Status) -> Status:
        """How its task is: `lost` where there is none, UNKNOWN where that cannot be told now."""
        try:
            return self._tasks.get(namespace, container).state().status
        except NotFound:
            return lost
        except OrlopError:
            return UNKNOWN

    def _remove(self, namespace: str, container: Container) -> None:
        """Have a container removed that has ended, if no client is there that cares for it."""
        if _is_cared_for(container):
            self._look_later(namespace, container)
        else:
            self._hands.submit(self._remove_all, namespace, container)

    def _look_later(self, namespace: str, container: Container) -> None:
        def look() -> None:
            with suppress(RuntimeError):  # this daemon is ending itself
                self._hands.submit(self._look_again, namespace, container)

        self._reactor.call_later(_CLIENT_PATIENCE, look)

    def _look_again(self, namespace: str, container: Container) -> None:
        """Remove a container that has ended, unless its client has done so, or is about to."""
        try:
            found = self._containers.get(namespace, container.id)
            if found.created_at != container.created_at or not _concerns(found):
                return
        except NotFound:
            return
        except OrlopError:
            self._look_later(namespace, container)
            return
        status = self._status(namespace, container.id, lost=STOPPED)
        if status == UNKNOWN:
            self._look_later(namespace, container)  # its exit was heard: no event will come
        elif status == STOPPED:
            self._remove(namespace, found)

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
            # Somebody else may be faster, and make another one, or start this one again.
            found = self._containers.get(namespace, name)
            if found.created_at != container.created_at or not _concerns(found):
                return
            status = self._status(namespace, name, lost=STOPPED)
            if status == UNKNOWN or _is_cared_for(found):
                self._look_later(namespace, container)
                return
            if status != STOPPED:
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
        except Exception:  # noqa: BLE001 - it is the only one who hears of it
            _log.exception("namespace=%s container=%s cannot be removed", namespace, name)

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


def _concerns(container: Container) -> bool:
    """Whether it is to be removed; any other value, such as "false", is somebody's who says no."""
    value = container.labels.get(LABEL, "")
    return value == _BY_DAEMON or value.startswith((_BY_CLIENT, _RESTARTING))


def _is_cared_for(container: Container) -> bool:
    """Whether a client lives that removes it itself, or that restarts it; if in doubt it does."""
    try:
        return any(map(is_alive, container.labels[LABEL].split(":")))
    except OSError:
        return True
