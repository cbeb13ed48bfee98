"""Notes on containers that ran out of memory, for their clients to show: nothing else remembers it.

The note is a label with the pid of the task that it happened to, so that it is void for the next.
Only the containers of orlop's own clients get it: others' records are theirs.
"""

from __future__ import annotations

import logging
import threading

from google.protobuf.field_mask_pb2 import FieldMask
from msgspec import structs

from orlop.containers import ContainerStore
from orlop.errors import NotFound, OrlopError, ResourceExhausted
from orlop.events import Exchange, decoded
from orlop.runtime import TaskManager
from orlop.wire.events_pb2 import TaskOOM

LABEL = "orlop/oom-killed"
_OWN_LABEL = "orlop/attach"
_FILTERS = ['topic=="/tasks/oom"']
_log = logging.getLogger(__name__)


class OomRecorder:
    """Takes notes from `start` to `close`, on a thread of its own."""

    def __init__(self, exchange: Exchange, containers: ContainerStore, tasks: TaskManager) -> None:
        self._exchange = exchange
        self._containers = containers
        self._tasks = tasks
        self._events = exchange.subscribe(_FILTERS)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="oom", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._events.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            try:
                for envelope in self._events:
                    if event := decoded(envelope, TaskOOM):
                        self._note(envelope.namespace, event.container_id)
            except ResourceExhausted:
                self._events = self._exchange.subscribe(_FILTERS)

    def _note(self, namespace: str, id: str) -> None:
        try:
            container = self._containers.get(namespace, id)
            if _OWN_LABEL not in container.labels:
                return
            pid = self._tasks.get(namespace, id).state().pid
            if container.labels.get(LABEL) != str(pid):
                noted = structs.replace(container, labels={LABEL: str(pid)})
                mask = FieldMask(paths=[f"labels.{LABEL}"])
                self._containers.update(namespace, noted, mask)
        except NotFound:
            return  # it has been removed meanwhile
        except OrlopError as error:
            _log.warning(
                "namespace=%s container=%s out of memory, untold: %s", namespace, id, error
            )
