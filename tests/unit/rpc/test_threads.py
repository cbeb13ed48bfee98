"""The threads that serve calls."""

from __future__ import annotations

import threading
import time

import pytest

from orlop.rpc.threads import ThreadPool


def test_as_many_threads_as_jobs_at_once() -> None:
    pool, gate = ThreadPool(100, "t"), threading.Barrier(51)
    for _ in range(50):
        pool.submit(gate.wait, 10)
    gate.wait(10)  # all of them run
    pool.close()


def test_threads_are_used_again() -> None:
    pool, seen = ThreadPool(100, "t"), list[int]()
    done = threading.Semaphore(0)

    def note() -> None:
        seen.append(threading.get_ident())
        done.release()

    end = time.monotonic() + 20
    while len(set(seen)) == len(seen):  # a thread that has just done a job is not free at once
        assert time.monotonic() < end
        pool.submit(note)
        assert done.acquire(timeout=10)
    pool.close()


def test_threads_end_when_they_have_nothing_to_do() -> None:
    pool, done = ThreadPool(100, "brief", linger=0.1), threading.Event()
    pool.submit(done.set)
    assert done.wait(10)
    end = time.monotonic() + 20
    while any(thread.name == "brief" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)
    done.clear()
    pool.submit(done.set)
    assert done.wait(10)
    pool.close()


def test_more_jobs_than_threads() -> None:
    pool, results = ThreadPool(2, "t"), list[int]()
    for number in range(200):
        pool.submit(results.append, number)
    pool.close()
    assert sorted(results) == list(range(200))
    pool.submit(results.append, 200)
    assert len(results) == 200


def test_a_job_that_fails_takes_no_thread_along() -> None:
    pool, done = ThreadPool(1, "t"), threading.Event()
    pool.submit(lambda: 1 // 0)
    pool.submit(done.set)
    assert done.wait(10)
    pool.close()


def test_jobs_wait_when_the_machine_has_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, gate, done = ThreadPool(100, "t"), threading.Event(), threading.Semaphore(0)
    pool.submit(gate.wait, 20)
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", start)
        pool.submit(done.release)
        pool.submit(done.release)
    gate.set()
    assert done.acquire(timeout=10)
    assert done.acquire(timeout=10)
    meeting = threading.Barrier(3)
    pool.submit(meeting.wait, 10)
    pool.submit(meeting.wait, 10)
    meeting.wait(10)  # neither waits for the other
    pool.close()


def test_threads_that_end_miss_no_job() -> None:
    pool, total = ThreadPool(100, "t", linger=0.001), 2000
    done = threading.Semaphore(0)
    for number in range(total):
        pool.submit(done.release)
        if number % 20 == 0:
            time.sleep(0.002)
    for _ in range(total):
        assert done.acquire(timeout=10)
    pool.close()
