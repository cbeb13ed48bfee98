"""Work that goes on side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait

from orlop.errors import Cancelled
from orlop.rpc import CallContext


def finish(jobs: Sequence[Future[None]], work: CallContext) -> None:
    """Wait for all jobs; the first failure cancels `work`, and so the others, and is raised."""
    done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
    failures = [error for job in done if (error := job.exception()) is not None]
    if failures:
        work.cancel()
        wait(jobs)
        # What was stopped because of another's failure says nothing.
        raise next((each for each in failures if not isinstance(each, Cancelled)), failures[0])
