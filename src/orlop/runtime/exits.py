"""The events of shims, watched on their way to the subscribers."""

from __future__ import annotations

from orlop.events import decoded
from orlop.events.service import Forwarder
from orlop.rpc.convert import nanoseconds
from orlop.runtime.model import Exit
from orlop.runtime.tasks import TaskManager
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.types_pb2 import Envelope

_TOPIC = "/tasks/exit"


class ExitWatch:
    """Passes events on, and notes how tasks ended: a shim that dies later cannot tell any more."""

    def __init__(self, tasks: TaskManager, exchange: Forwarder) -> None:
        self._tasks = tasks
        self._exchange = exchange

    def forward(self, envelope: Envelope) -> None:
        """As `orlop.events.Exchange.forward`."""
        if envelope.topic == _TOPIC:
            self._note(envelope)
        self._exchange.forward(envelope)

    def _note(self, envelope: Envelope) -> None:
        event = decoded(envelope, TaskExit)
        if event is not None and event.id == event.container_id:
            ended = Exit(event.exit_status, nanoseconds(event.exited_at), event.pid)
            self._tasks.note_exit(envelope.namespace, event.container_id, ended)
