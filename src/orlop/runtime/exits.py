"""The events of shims, watched on their way to the subscribers."""

from __future__ import annotations

from orlop.events import decoded
from orlop.events.service import Forwarder
from orlop.rpc.convert import nanoseconds
from orlop.runtime.model import Exit
from orlop.runtime.tasks import TaskManager
from orlop.wire.events_pb2 import TaskExit, TaskOOM
from orlop.wire.types_pb2 import Envelope

# What clients follow that they could not ask for later.
_KEPT: dict[str, type[TaskExit | TaskOOM]] = {"/tasks/exit": TaskExit, "/tasks/oom": TaskOOM}


class ExitWatch:
    """Passes events on, and notes how tasks ended: a shim that dies later cannot tell any more.

    Those of tasks that an earlier daemon has made are kept for its clients, who may need a moment
    to find this one.
    """

    def __init__(self, tasks: TaskManager, exchange: Forwarder) -> None:
        self._tasks = tasks
        self._exchange = exchange

    def forward(self, envelope: Envelope, *, keep: bool = False) -> None:
        """As `orlop.events.Exchange.forward`."""
        kind = _KEPT.get(envelope.topic)
        event = decoded(envelope, kind) if kind is not None else None
        if event is not None:
            keep = keep or self._tasks.recovered(envelope.namespace, event.container_id)
            if isinstance(event, TaskExit) and event.id == event.container_id:
                ended = Exit(event.exit_status, nanoseconds(event.exited_at), event.pid)
                if not self._tasks.note_exit(envelope.namespace, event.container_id, ended):
                    return  # it was told before
        self._exchange.forward(envelope, keep=keep)
