"""What is told of tasks that an earlier daemon has made reaches clients that come late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

from orlop.events import Exchange
from orlop.rpc.convert import pack, timestamp
from orlop.runtime.exits import ExitWatch
from orlop.wire.events_pb2 import TaskExit, TaskOOM, TaskPaused
from orlop.wire.types_pb2 import Envelope


def _envelope(topic: str, event: Message) -> Envelope:
    return Envelope(timestamp=timestamp(1), namespace="n", topic=topic, event=pack(event))


def test_ends_and_want_of_memory_are_kept() -> None:
    exchange = Exchange()
    noted: list[str] = []
    tasks: Any = SimpleNamespace(
        recovered=lambda _, container: container == "old",
        note_exit=lambda _, container, ended: noted.append(container),
    )
    watch = ExitWatch(tasks, exchange)
    for container in ("old", "new"):
        watch.forward(_envelope("/tasks/oom", TaskOOM(container_id=container)))
        watch.forward(_envelope("/tasks/paused", TaskPaused(container_id=container)))
        watch.forward(_envelope("/tasks/exit", TaskExit(container_id=container, id=container)))
        watch.forward(_envelope("/tasks/exit", TaskExit(container_id=container, id="exec")))
    with exchange.subscribe() as late:
        told = late.take(0) or []
    assert [each.topic for each in told] == ["/tasks/oom", "/tasks/exit", "/tasks/exit"]
    assert noted == ["old", "new"]
