"""Jobs that go on side by side, on a machine that has no more threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orlop.rpc import CallContext
from orlop.transfer.jobs import side_by_side


def test_nothing_goes_on_when_there_are_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, allowed = threading.Thread.start, iter([True, True])
    work, cancelled = CallContext(), threading.Event()
    work.on_cancel(cancelled.set)
    begun: list[int] = []
    ended: list[int] = []

    def job(number: int) -> None:
        begun.append(number)
        cancelled.wait(20)
        ended.append(number)

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name.startswith("job") and not next(allowed, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    with ThreadPoolExecutor(5, thread_name_prefix="job") as pool:
        with pytest.raises(RuntimeError, match="start new thread"):
            side_by_side(pool, job, range(5), work)
        after = list(ended)
    assert work.cancelled
    assert sorted(after) == sorted(ended) == sorted(begun) != []
