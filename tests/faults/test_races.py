"""Several clients at one task: somebody wins, nobody waits, nothing is left or told twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from orlop.client import Connection, containers, creating, images
from orlop.client.stdio import Streams
from orlop.errors import AlreadyExists, DeadlineExceeded, NotFound, OrlopError, Unknown
from orlop.wire.services import tasks_pb2
from orlop.wire.types_pb2 import Mount
from tests.daemon_fixture import BUSYBOX, Orlopd
from tests.lent_daemon import Lender
from tests.shims_fixture import DEBIANS, OWN, serving_by
from tests.strange_fixture import Heard, listening

pytestmark = pytest.mark.root

CLIENTS = 6


@pytest.fixture(params=[OWN, DEBIANS])
def orlopd(request: pytest.FixtureRequest, lender: Lender) -> Iterator[Orlopd]:
    yield from serving_by(request, lender)


def _make(connection: Connection, *command: str) -> list[Mount]:
    view = images.view(connection, images.get(connection, BUSYBOX))
    wanted = creating.Wanted(image=view, id="one", command=list(command))
    return creating.create(connection, wanted)[1]


def _create(connection: Connection, mounts: list[Mount]) -> None:
    containers.create_task(connection, "one", mounts, Streams())


def _start(connection: Connection) -> None:
    connection.tasks.start(tasks_pb2.StartRequest(container_id="one"), timeout=30)


def _delete(connection: Connection) -> int:
    request = tasks_pb2.DeleteTaskRequest(container_id="one")
    return int(connection.tasks.delete(request, timeout=30).exit_status)


def _kill(connection: Connection) -> None:
    connection.tasks.kill(tasks_pb2.KillRequest(container_id="one", signal=9), timeout=30)


def _all_at_once(
    daemon: Orlopd, acts: list[Callable[[Connection], object]]
) -> list[object | OrlopError]:
    """What each client gets, all at the same time on connections of their own."""

    def act(what: Callable[[Connection], object]) -> object | OrlopError:
        with daemon.connect() as connection:
            try:
                return what(connection)
            except OrlopError as error:
                return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return [each.result(110) for each in [pool.submit(act, what) for what in acts]]


def test_many_delete_one_task(orlopd: Orlopd, busybox: str) -> None:
    with orlopd.connect() as connection, listening(orlopd) as heard:
        mounts = _make(connection, "sh", "-c", "exit 9")
        for number in range(1, 6):
            _create(connection, mounts)
            _start(connection)
            assert containers.wait(connection, "one", timeout=20) == 9
            found = _all_at_once(orlopd, [_delete] * CLIENTS)
            assert 9 in found  # also who asked a shim that was about to end gets to know
            assert all(each == 9 or isinstance(each, NotFound) for each in found), found
            # The deletes are told in order, and none follows.
            orlopd.wait_for(partial(_told, heard, number))
            assert heard.counts["/tasks/exit", "one"] == number
        containers.remove(connection, containers.get(connection, "one"), force=True)


def _told(heard: Heard, number: int) -> bool:
    assert heard.counts["/tasks/delete", "one"] <= number
    return heard.counts["/tasks/delete", "one"] == number


def test_many_create_one_task(orlopd: Orlopd, busybox: str) -> None:
    with orlopd.connect() as connection:
        mounts = _make(connection, "sleep", "1000")
        for _ in range(3):
            found = _all_at_once(orlopd, [lambda c: _create(c, mounts)] * CLIENTS)
            assert found.count(None) == 1, found
            assert sum(isinstance(each, AlreadyExists) for each in found) == CLIENTS - 1, found
            _delete(connection)
        containers.remove(connection, containers.get(connection, "one"), force=True)


def test_many_ask_of_one_task_that_is_deleted(orlopd: Orlopd, busybox: str) -> None:
    """Who asks while the shim leaves hears that there is no such task, not of a lost connection."""
    over = threading.Event()

    def ask(connection: Connection) -> None:
        get = tasks_pb2.GetRequest(container_id="one")
        pids = tasks_pb2.ListPidsRequest(container_id="one")
        while not over.is_set():
            # Debian's shim is silent while runC deletes, and has two seconds to tell.
            with suppress(NotFound, DeadlineExceeded):
                connection.tasks.get(get, timeout=30)
            # Of a container without a process runC itself says what it thinks.
            with suppress(NotFound, Unknown):
                connection.tasks.list_pids(pids, timeout=30)

    def delete(connection: Connection) -> None:
        try:
            for _ in range(10):
                _create(connection, mounts)
                _delete(connection)
        finally:
            over.set()

    with orlopd.connect() as connection:
        mounts = _make(connection, "true")
        assert _all_at_once(orlopd, [delete, *[ask] * 3]) == [None] * 4
        containers.remove(connection, containers.get(connection, "one"), force=True)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_ends_that_come_while_it_begins(orlopd: Orlopd, busybox: str, delay: float) -> None:
    """Kills and deletes during create and start: each is right or refused; then all is over."""

    def late(what: Callable[[Connection], object]) -> Callable[[Connection], object]:
        def act(connection: Connection) -> object:
            time.sleep(delay)
            return what(connection)

        return act

    def begin(connection: Connection) -> None:
        _create(connection, mounts)
        _start(connection)

    with orlopd.connect() as connection, listening(orlopd) as heard:
        mounts = _make(connection, "sleep", "1000")
        found = _all_at_once(
            orlopd, [begin, late(_kill), late(_delete), late(_kill), late(_delete)]
        )
        for each in found:
            assert (
                not isinstance(each, OrlopError)
                or isinstance(each, (NotFound, Unknown))
                or ("precondition" in str(each) or "not running" in str(each))
            ), found
        containers.remove(connection, containers.get(connection, "one"), force=True)
        assert heard.counts["/tasks/exit", "one"] <= 1
        orlopd.wait_for(lambda: not orlopd.leftovers().get("bundles"))
