"""The remover with tasks that answer as those of a shim in trouble do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Spec

from orlop.containers import Container, ContainerStore
from orlop.daemon import autoremove
from orlop.daemon.autoremove import LABEL, AutoRemover
from orlop.errors import DeadlineExceeded
from orlop.events import Exchange
from orlop.metadata import Database
from orlop.namespaces.store import NamespaceStore
from orlop.rpc.reactor import Reactor
from orlop.sys.process import mark
from orlop.wire.events_pb2 import TaskExit
from orlop.wire.task_types_pb2 import RUNNING, STOPPED, UNKNOWN, Status
from tests.patience import wait_for


class _Tasks:
    """One task, which says what it is told to; it is deleted by nobody but the remover."""

    pid = 7

    def __init__(self) -> None:
        self.state_of: Callable[[], Status] = lambda: RUNNING
        self.looks = 0

    def get(self, namespace: str, id: str) -> _Tasks:
        return self

    def state(self) -> Any:
        self.looks += 1
        return SimpleNamespace(status=self.state_of())

    def delete(self, ctx: Any, namespace: str, id: str) -> None:
        pass


@pytest.fixture
def client() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def _hangs() -> Status:
    raise DeadlineExceeded


def test_a_shim_that_cannot_tell_is_asked_again(
    tmp_path: Path, client: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoremove, "_CLIENT_PATIENCE", 0.01)
    tasks: Any = _Tasks()
    with ExitStack() as closing:
        exchange, database, reactor = Exchange(), Database(tmp_path / "db"), Reactor()
        closing.callback(database.close)
        closing.callback(reactor.close)
        containers = ContainerStore(database, exchange)
        namespaces = NamespaceStore(database, exchange, lambda _: None)
        labels = {LABEL: f"client:{mark(client.pid)}"}
        containers.create("ns", Container("one", "runtime", Spec(), labels=labels))
        remover = AutoRemover(exchange, namespaces, containers, tasks, {}, tmp_path, reactor)
        closing.callback(remover.close)
        remover.start()
        wait_for(lambda: tasks.looks == 1)
        tasks.state_of = _hangs
        exchange.publish("ns", "/tasks/exit", TaskExit(container_id="one", id="one", pid=7))
        wait_for(lambda: tasks.looks > 2)
        tasks.state_of = lambda: UNKNOWN
        before = tasks.looks
        wait_for(lambda: tasks.looks > before + 2)
        tasks.state_of = lambda: STOPPED
        client.kill()
        client.wait()
        wait_for(lambda: not containers.list("ns"))
