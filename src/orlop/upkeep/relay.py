"""Work that tells as it goes, as the answers of a streaming call."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def relayed(work: Callable[[Callable[[T], None]], None], name: str) -> Iterator[T]:
    """What `work`, in a thread of its own, tells; at its end, raises what it raised.

    It is joined when the caller has had enough: what ends the call must end the work.
    """
    told: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work(told.put)
        except BaseException as error:  # noqa: BLE001 - it goes to the caller
            failure.append(error)
        told.put(None)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while (message := told.get()) is not None:
            yield message
        if failure:
            raise failure[0]
    finally:
        thread.join()
