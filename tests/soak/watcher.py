"""Hears all events: a process's exit is told once on each connection."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from orlop.client import Connection
from orlop.errors import OrlopError
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.services import events_pb2
from tests.soak.ledger import Ledger


class Watcher(threading.Thread):
    """Subscribes, and again whenever the daemon has gone."""

    def __init__(self, connect: Callable[[], Connection], ledger: Ledger) -> None:
        super().__init__(name="watcher", daemon=True)
        self._connect = connect
        self._ledger = ledger
        self._over = threading.Event()
        self.heard = 0

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                with self._connect() as connection:
                    self._listen(connection)
            except OrlopError:
                time.sleep(0.05)  # no daemon: it is being started

    def _listen(self, connection: Connection) -> None:
        told: Counter[tuple[str, str, int]] = Counter()
        request = events_pb2.SubscribeRequest(filters=['topic=="/tasks/exit"'])
        for envelope in connection.events.subscribe(request):
            exited = TaskExit.FromString(envelope.event.value)
            key = (exited.container_id, exited.id, exited.pid)
            told[key] += 1
            self.heard += 1
            if told[key] > 1:
                self._ledger.fault(f"exit of {key} was told {told[key]} times")
