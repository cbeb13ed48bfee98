"""Work that goes on side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from orlop import tracing
from orlop.errors import Cancelled
from orlop.rpc import CallContext

T = TypeVar("T")


def side_by_side(
    pool: ThreadPoolExecutor, do: Callable[[T], None], things: Sequence[T], work: CallContext
) -> None:
    """Do it with each thing; the first failure cancels `work`, and so the others.

    It is raised when all have ended. One failure is that no thread can be started; the pool takes
    no more then.
    """
    try:
        jobs = [pool.submit(tracing.carry(do), each) for each in things]
    except Exception:
        work.cancel()
        pool.shutdown(cancel_futures=True)  # waits also for the one that was queued without thread
        raise
    done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
    failures = [error for job in done if (error := job.exception()) is not None]
    if failures:
        work.cancel()
        wait(jobs)
        # What was stopped because of another's failure says nothing.
        raise next((each for each in failures if not isinstance(each, Cancelled)), failures[0])
