"""When collections begin, and who waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orlop.errors import Cancelled, Internal, Unavailable
from orlop.gc import Collection, Collector, Scheduler, Thresholds
from orlop.metadata import Database
from orlop.rpc import CallContext
from tests.patience import patient

QUIET = Thresholds(pause_threshold=0.5, startup_delay=0.0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "metadata.db")
    yield made
    made.close()


@contextmanager
def scheduler(
    database: Database, limits: Thresholds = QUIET, collector: type[Collector] = Collector
) -> Iterator[tuple[Scheduler, list[Collection | None]]]:
    runs: list[Collection | None] = []
    made = Scheduler(collector(database, {}), limits, runs.append)
    database.on_write = made.touch
    made.start()
    yield made, runs
    made.close()


def note(database: Database, names: int = 1, lost: int = 1) -> None:
    with database.write() as tx:
        for number in range(names):
            tx.execute(
                "INSERT INTO gc_log (namespace, name, lost) VALUES ('n', ?, ?)",
                (str(number), lost),
            )


def noted(database: Database) -> int:
    with database.read() as tx:
        row = tx.one("SELECT count(*) FROM gc_log")
    assert row is not None
    return int(row[0])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + patient(10)
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_loss_is_answered_soon(database: Database) -> None:
    with scheduler(database) as (_, runs):
        note(database)
        until(lambda: noted(database) == 0)
    assert runs


def test_news_alone_wait_until_they_are_many(database: Database) -> None:
    limits = Thresholds(pause_threshold=0.5, startup_delay=0.0, mutation_threshold=5)
    with scheduler(database, limits) as (_, runs):
        note(database, 4, lost=0)
        time.sleep(0.2)
        assert noted(database) == 4
        assert not runs
        note(database, 1, lost=0)
        until(lambda: noted(database) == 0)


def test_what_was_left_is_looked_at_at_the_start(database: Database) -> None:
    note(database, 1, lost=0)
    with scheduler(database):
        until(lambda: noted(database) == 0)


def test_who_waits_gets_a_collection_of_his_own(database: Database) -> None:
    slow = Thresholds(startup_delay=60)
    with scheduler(database, slow) as (made, runs):
        note(database, lost=0)
        made.collect(CallContext())
        assert noted(database) == 0
        made.collect(CallContext())
        assert len(runs) == 2


def test_many_losses_do_not_wait_for_the_pause(database: Database) -> None:
    limits = Thresholds(startup_delay=600, deletion_threshold=3)
    with scheduler(database, limits):
        note(database, 2)
        time.sleep(0.2)
        assert noted(database) == 2
        note(database, 1)
        until(lambda: noted(database) == 0)


def test_an_end_is_noticed_while_nothing_happens(database: Database) -> None:
    class Ending(Collector):
        def next_expiry(self) -> float | None:
            return end if not ran.is_set() else None

        def run(self, stop: Callable[[], bool] = lambda: False) -> Collection:
            ran.set()
            return super().run(stop)

    ran, end = threading.Event(), time.time() + 0.3
    with scheduler(database, collector=Ending):
        assert ran.wait(patient(10))
    assert time.time() >= end


def test_a_database_that_fails_for_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shy(Collector):
        def waiting(self) -> tuple[int, int]:
            asked.append(1)
            if len(asked) == 2:  # the first is at the start, which would be told
                raise OSError("not now")
            return super().waiting()

    asked: list[int] = []
    monkeypatch.setattr("orlop.gc.scheduler._AFTER_FAILURE", 0.05)
    note(database)
    with scheduler(database, collector=Shy):
        until(lambda: noted(database) == 0)
    assert len(asked) >= 3


class Broken(Collector):
    """A collector that fails."""

    def run(self, stop: Callable[[], bool] = lambda: False) -> Collection:
        raise OSError("no such disk")


def test_what_has_ended_and_is_kept_is_no_reason_to_go_on(database: Database) -> None:
    with database.write() as tx:
        tx.execute("INSERT INTO namespaces VALUES ('n')")
        tx.execute("INSERT INTO ingests VALUES ('n', 'ref', 'd', '', 0, 1, 1, 1)")
    with scheduler(database) as (made, runs):
        made.collect(CallContext())
        time.sleep(0.3)
        count = len(runs)
        time.sleep(0.5)
        assert len(runs) == count <= 2


def test_what_failed_is_tried_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stumbling(Collector):
        def run(self, stop: Callable[[], bool] = lambda: False) -> Collection:
            if not tries:
                tries.append(1)
                raise OSError("not now")
            return super().run(stop)

    monkeypatch.setattr("orlop.gc.scheduler._AFTER_FAILURE", 0.05)
    tries: list[int] = []
    note(database)
    with scheduler(database, collector=Stumbling) as (_, runs):
        until(lambda: noted(database) == 0)
    assert runs[0] is None


def test_a_failure_is_told_to_who_waits(database: Database) -> None:
    with scheduler(database, collector=Broken) as (made, runs):
        for _ in range(2):
            with pytest.raises(Internal, match="no such disk"):
                made.collect(CallContext())
    assert runs == [None, None]
    assert made.collections.read() == {("fail",): 2}  # containerd's word


def test_waiting_ends_with_the_call_and_with_the_daemon(database: Database) -> None:
    class Hanging(Collector):
        def run(self, stop: Callable[[], bool] = lambda: False) -> Collection:
            held.set()
            release.wait()
            return Collection(0.0)

    held, release = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def wait(ctx: CallContext) -> None:
        try:
            made.collect(ctx)
        except (Cancelled, Unavailable) as error:
            errors.append(error)

    with scheduler(database, collector=Hanging) as (made, _):
        first = CallContext()
        waiting = threading.Thread(target=wait, args=(first,))
        waiting.start()
        held.wait()
        first.cancel()
        waiting.join()
        second = threading.Thread(target=wait, args=(CallContext(),))
        second.start()
        ending = threading.Thread(target=made.close)
        ending.start()
        second.join()
        release.set()
        ending.join()
    assert [type(error) for error in errors] == [Cancelled, Unavailable]
