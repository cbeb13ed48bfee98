"""Which error a call is answered with."""

from __future__ import annotations

import time

import pytest

from orlop.errors import Cancelled, DeadlineExceeded, NotFound, OrlopError, Unknown
from orlop.rpc import CallContext
from orlop.rpc.dispatch import failure

PAST, FUTURE = -1.0, 60.0


@pytest.mark.parametrize(
    ("error", "deadline", "gone", "answer"),
    [
        (Cancelled(), None, True, Cancelled),
        (Cancelled(), FUTURE, True, Cancelled),
        (Cancelled(), PAST, True, DeadlineExceeded),
        (NotFound("x"), PAST, True, NotFound),
        (RuntimeError("broken off"), None, True, Cancelled),
        (RuntimeError("a defect"), None, False, Unknown),
        (OSError("a disk"), None, False, Unknown),
    ],
)
def test_answers(
    error: Exception, deadline: float | None, gone: bool, answer: type[OrlopError]
) -> None:
    when = None if deadline is None else time.monotonic() + deadline
    context = CallContext(deadline=when)
    assert type(failure(error, "s", "m", context, gone=gone)) is answer
