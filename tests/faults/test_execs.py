"""Execs in quantity, and at awkward moments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.protobuf.any_pb2 import Any

from orlop.client import Connection, containers
from orlop.errors import NotFound, OrlopError, Unknown
from orlop.wire.services import tasks_pb2
from tests.daemon_fixture import Orlopd
from tests.events_heard import hearing
from tests.lent_daemon import Lender
from tests.shims_fixture import DEBIANS, OWN, serving_by

pytestmark = pytest.mark.root
# Debian's shim takes long for so many at once, and refuses to resize what has ended.
_BY_OURS = pytest.mark.parametrize("orlopd", [OWN], indirect=True)


@pytest.fixture(params=[OWN, DEBIANS])
def orlopd(request: pytest.FixtureRequest, lender: Lender) -> Iterator[Orlopd]:
    yield from serving_by(request, lender)


@pytest.fixture
def sleeper(orlopd: Orlopd, busybox: str) -> Iterator[str]:
    orlopd.ctr("run", "-d", busybox, "sleeper", "sleep", "1000")
    yield "sleeper"
    orlopd.ctr("tasks", "rm", "-f", "sleeper", check=False)
    orlopd.ctr("containers", "rm", "sleeper")


def _add(connection: Connection, exec_id: str, script: str, *, terminal: bool = False) -> None:
    process = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
               "user": {"uid": 0, "gid": 0}, "terminal": terminal}  # fmt: skip
    spec = Any(type_url=containers.PROCESS_TYPE, value=json.dumps(process).encode())
    connection.tasks.exec(
        tasks_pb2.ExecProcessRequest(
            container_id="sleeper", exec_id=exec_id, spec=spec, terminal=terminal
        )
    )


def _start(connection: Connection, exec_id: str) -> int:
    request = tasks_pb2.StartRequest(container_id="sleeper", exec_id=exec_id)
    return int(connection.tasks.start(request, timeout=60).pid)


def _wait(connection: Connection, exec_id: str) -> int:
    request = tasks_pb2.WaitRequest(container_id="sleeper", exec_id=exec_id)
    return int(connection.tasks.wait(request, timeout=60).exit_status)


def _delete(connection: Connection, exec_id: str) -> int:
    request = tasks_pb2.DeleteProcessRequest(container_id="sleeper", exec_id=exec_id)
    return int(connection.tasks.delete_process(request, timeout=60).exit_status)


@_BY_OURS
def test_a_hundred_at_once(orlopd: Orlopd, sleeper: str) -> None:
    with orlopd.connect() as connection, ThreadPoolExecutor(100) as pool:

        def run(number: int) -> tuple[int, int]:
            _add(connection, f"e{number}", f"exit {number}")
            _start(connection, f"e{number}")
            return _wait(connection, f"e{number}"), _delete(connection, f"e{number}")

        assert list(pool.map(run, range(100))) == [(n, n) for n in range(100)]
        pids = connection.tasks.list_pids(tasks_pb2.ListPidsRequest(container_id=sleeper))
        assert len(pids.processes) == 1


def test_it_has_ended_before_its_start_returns(orlopd: Orlopd, sleeper: str) -> None:
    """The start still succeeds, and the events come in order."""
    expected = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"] * 10
    with hearing(orlopd) as heard, orlopd.connect() as connection:
        for number in range(10):
            _add(connection, f"e{number}", "exit 7")
            assert _start(connection, f"e{number}") > 0
            assert _wait(connection, f"e{number}") == 7
            _delete(connection, f"e{number}")
        orlopd.wait_for(lambda: len(heard.topics("/tasks/ex")) >= len(expected))
        assert heard.topics("/tasks/ex") == expected


def test_in_a_paused_container(orlopd: Orlopd, sleeper: str) -> None:
    with orlopd.connect() as connection:
        _add(connection, "before", "exit 3")
        connection.tasks.pause(tasks_pb2.PauseTaskRequest(container_id=sleeper))
        with pytest.raises(Unknown, match="cannot exec in a paused state"):
            _add(connection, "e", "true")
        connection.tasks.resume(tasks_pb2.ResumeTaskRequest(container_id=sleeper))
        _start(connection, "before")
        assert _wait(connection, "before") == 3
        _delete(connection, "before")


def test_one_that_was_never_started(orlopd: Orlopd, sleeper: str) -> None:
    with orlopd.connect() as connection:
        _add(connection, "e", "true")
        with pytest.raises(OrlopError, match=r'id "?e"?'):
            _add(connection, "e", "true")
        _delete(connection, "e")
        with pytest.raises(NotFound):
            _start(connection, "e")
        _add(connection, "e", "exit 4")  # the id is free again
        _start(connection, "e")
        assert _wait(connection, "e") == 4
        _delete(connection, "e")


def test_sizes_of_what_has_no_terminal(orlopd: Orlopd, sleeper: str) -> None:
    with orlopd.connect() as connection:
        _add(connection, "e", "sleep 1000")
        _start(connection, "e")
        for exec_id in ("", "e"):
            connection.tasks.resize_pty(
                tasks_pb2.ResizePtyRequest(
                    container_id=sleeper, exec_id=exec_id, width=80, height=24
                ),
                timeout=20,
            )
        connection.tasks.kill(
            tasks_pb2.KillRequest(container_id=sleeper, exec_id="e", signal=9), timeout=20
        )
        assert _wait(connection, "e") == 137
        _delete(connection, "e")


@_BY_OURS
def test_sizes_of_a_terminal_that_ends(orlopd: Orlopd, sleeper: str) -> None:
    """Resizes race with the end of the process; only of one that is gone they are not found."""
    with orlopd.connect() as connection, ThreadPoolExecutor(4) as pool:
        _add(connection, "e", "sleep 0.3", terminal=True)
        _start(connection, "e")

        def resize(number: int) -> None:
            request = tasks_pb2.ResizePtyRequest(
                container_id=sleeper, exec_id="e", width=80 + number % 40, height=24
            )
            connection.tasks.resize_pty(request, timeout=20)

        list(pool.map(resize, range(400)))
        assert _wait(connection, "e") == 0
        resize(0)
        _delete(connection, "e")
        with pytest.raises(NotFound):
            resize(0)
