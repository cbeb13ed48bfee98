"""What a daemon's end costs a container that is just to be started again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Spec

from orlop.containers import Container, ContainerStore
from orlop.errors import Cancelled
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.namespaces.store import NamespaceStore
from orlop.restart import Monitor
from orlop.restart.rules import COUNT, POLICY, STATUS
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.task_types_pb2 import STOPPED
from tests.patience import wait_for

_FAILED = SimpleNamespace(status=STOPPED, pid=7, exit=SimpleNamespace(status=1))


class _Reviver:
    """At one step the daemon's end begins, which breaks off what follows."""

    def __init__(self, ends_at: str) -> None:
        self._ends_at = ends_at
        self.stop: Callable[[], None] = lambda: None
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self._ends_at:
            self.stop()

    def task(self, namespace: str, id: str) -> Any:
        return self

    def state(self, task: Any) -> Any:
        self._step("state")
        return _FAILED

    def revive(self, *_: object) -> int:
        self._step("revive")
        raise Cancelled

    def close(self) -> None:
        pass


@pytest.mark.parametrize("ends_at", ["state", "revive"])
def test_no_try_is_lost(tmp_path: Path, ends_at: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    reviver: Any = _Reviver(ends_at)
    with ExitStack() as closing:
        exchange, database = Exchange(), Database(tmp_path / "db")
        closing.callback(database.close)
        containers = ContainerStore(database, exchange)
        namespaces = NamespaceStore(database, exchange, lambda _: None)
        monitor = Monitor(exchange, namespaces, containers, reviver, 3600)
        closing.callback(monitor.close)
        reviver.stop = monitor.stop
        monitor.start()
        labels = {STATUS: "running", POLICY: "on-failure:3", COUNT: "1"}
        containers.create("ns", Container("one", "runtime", Spec(), labels=labels))
        exchange.publish("ns", "/tasks/exit", TaskExit(container_id="one", id="one", pid=7))
        wait_for(lambda: monitor.looks.read() != {})
        assert reviver.steps[-1] == ends_at
        assert containers.get("ns", "one").labels[COUNT] == "1"
    assert not caplog.records
