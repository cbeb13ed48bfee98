"""What is told of tasks that an earlier daemon has made reaches clients that come late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

from orlop.events import Exchange
from orlop.rpc.convert import pack, timestamp
from orlop.runtime.exits import ExitWatch
from orlop.runtime.model import Exit
from orlop.runtime.task import Task
from orlop.wire import task_v3_pb2 as wire
from orlop.wire.events_pb2 import TaskExit, TaskOOM, TaskPaused
from orlop.wire.task_types_pb2 import Status
from orlop.wire.types_pb2 import Envelope


def _envelope(topic: str, event: Message) -> Envelope:
    return Envelope(timestamp=timestamp(1), namespace="n", topic=topic, event=pack(event))


def test_ends_and_want_of_memory_are_kept() -> None:
    exchange = Exchange()
    noted: list[str] = []

    def note_exit(_: str, container: str, ended: object) -> bool:
        noted.append(container)
        return True

    tasks: Any = SimpleNamespace(
        recovered=lambda _, container: container == "old", note_exit=note_exit
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


def test_an_end_that_was_told_in_a_shim_s_place_is_not_told_again() -> None:
    exchange = Exchange()
    tasks: Any = SimpleNamespace(recovered=lambda *_: True, note_exit=lambda *_: False)
    ExitWatch(tasks, exchange).forward(
        _envelope("/tasks/exit", TaskExit(container_id="one", id="one"))
    )
    with exchange.subscribe() as late:
        assert not late.take(0)


def test_how_a_task_ended_is_told_by_its_shim_or_in_its_place() -> None:
    """Whoever is first: the other would tell something else."""
    bundle: Any = SimpleNamespace(namespace="n", id="one")
    nobody: Any = None
    told, lost = (Task(bundle, nobody, nobody, 7) for _ in range(2))
    ended, killed = Exit(3, 1, 7), Exit(137, 2, 7)
    assert told.note_exit(ended) and told.tell_exit(killed) is told.exit is ended
    assert lost.tell_exit(killed) is killed
    assert not lost.note_exit(ended) and lost.exit is killed
    assert not told.note_exit(ended)  # it was not answered in time, and says it again


def test_a_pid_that_was_not_told_in_time_comes_with_a_later_answer() -> None:
    told = wire.StateResponse(id="one", pid=7, status=Status.RUNNING)
    bundle: Any = SimpleNamespace(namespace="n", id="one")
    shim: Any = SimpleNamespace(own=True, lost=False, call=lambda *_, **__: told)
    nobody: Any = None
    task = Task(bundle, shim, nobody)
    assert task.pid == 0
    task.state()
    assert task.pid == 7
