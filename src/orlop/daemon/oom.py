"""Notes on containers that ran out of memory, for their clients to show: nothing else remembers it.

The note is a label with the pid of the task that it happened to, so that it is void for the next.
Only the containers of orlop's own clients get it: others' records are theirs.
"""

from __future__ import annotations

from contextlib import suppress

from google.protobuf.field_mask_pb2 import FieldMask
from msgspec import structs

from orlop.containers import ContainerStore
from orlop.errors import NotFound
from orlop.events import Exchange, Listener, decoded
from orlop.runtime import TaskManager
from orlop.wire.events_pb2 import TaskOOM
from orlop.wire.types_pb2 import Envelope

LABEL = "orlop/oom-killed"
_OWN_LABEL = "orlop/attach"


class OomRecorder:
    """Takes notes from `start` to `close`, on a thread of its own."""

    def __init__(self, exchange: Exchange, containers: ContainerStore, tasks: TaskManager) -> None:
        self._containers = containers
        self._tasks = tasks
        self._listener = Listener(exchange, "oom", ["/tasks/oom"], self._heard)

    def start(self) -> None:
        self._listener.start()

    def close(self) -> None:
        self._listener.close()

    def _heard(self, envelope: Envelope) -> None:
        event = decoded(envelope, TaskOOM)
        if event is not None:
            with suppress(NotFound):  # it has been removed meanwhile
                self._note(envelope.namespace, event.container_id)

    def _note(self, namespace: str, id: str) -> None:
        container = self._containers.get(namespace, id)
        if _OWN_LABEL not in container.labels:
            return
        pid = self._tasks.get(namespace, id).state().pid
        if container.labels.get(LABEL) != str(pid):
            noted = structs.replace(container, labels={LABEL: str(pid)})
            mask = FieldMask(paths=[f"labels.{LABEL}"])
            self._containers.update(namespace, noted, mask)
