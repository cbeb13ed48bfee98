"""When a log that is followed is at its end: not while a restart is under way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from orlop.client import logs
from orlop.client.restarts import STATUS
from orlop.wire.services.containers_pb2 import Container
from orlop.wire.task_types_pb2 import RUNNING, STOPPED, Process, Status


def _runs_again(counted_at: int, *statuses: Status) -> bool:
    """Of a task that ended in second 5, and a restart that was counted in second `counted_at`."""
    left = [Process(status=each, exited_at=Timestamp(seconds=5)) for each in statuses]
    tasks = SimpleNamespace(get=lambda _: SimpleNamespace(process=left.pop(0)))
    connection: Any = SimpleNamespace(tasks=tasks)
    end: Any = SimpleNamespace(_id="one", _closed=SimpleNamespace(wait=lambda _: False))
    record = Container(
        id="one", labels={STATUS: "running"}, updated_at=Timestamp(seconds=counted_at)
    )
    return logs._End._runs_again(end, connection, record)


def test_a_task_that_is_about_to_go_is_not_the_last() -> None:
    """The monitor counts its last restart before it deletes the task that has ended."""
    assert _runs_again(6, STOPPED, STOPPED, RUNNING)
    assert not _runs_again(4, STOPPED)
    assert not _runs_again(6, *[STOPPED] * 10)
