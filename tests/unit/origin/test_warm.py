"""Writers that are kept open between the requests of an upload."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orlop.origin import warm
from orlop.origin.warm import WarmWriters


class Slow:
    """A writer whose end takes until `go`."""

    def __init__(self) -> None:
        self.closing, self.go, self.closed = (threading.Event() for _ in range(3))

    def close(self) -> None:
        self.closing.set()
        assert self.go.wait(20)
        self.closed.set()


def _taken(kept: WarmWriters, writer: Slow) -> bool:
    """Whether the writer was closed when its ref was found free."""
    assert kept.take("a") is None
    return writer.closed.is_set()


@pytest.mark.parametrize("why", ["cold", "too many"])
def test_who_wants_one_that_is_just_being_closed_waits(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its ref would be taken: the client would hear that somebody else writes to it."""
    monkeypatch.setattr(warm, "KEPT", 0.05 if why == "cold" else 60.0)
    monkeypatch.setattr(warm, "_MOST", 1)
    kept, writer, other = WarmWriters(), Slow(), Slow()
    other.go.set()
    with ThreadPoolExecutor(2) as pool:
        kept.put("a", _any(writer))
        if why == "too many":
            pool.submit(kept.put, "b", _any(other))
        assert writer.closing.wait(20)
        free = pool.submit(_taken, kept, writer)
        with pytest.raises(TimeoutError):
            free.result(0.1)
        writer.go.set()
        assert free.result(20)
    kept.close()


def _any(writer: Slow) -> Any:
    return writer
