"""Many small things to look at, shared between workers that are forked for it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

from orlop.errors import OrlopError, ResourceExhausted
from orlop.fork.memory import memory_file, read_all, write_all
from orlop.fork.worker import Spawner, Worker

_SHARE = 64
"""Things that are worth a worker of their own."""
_WORKERS = 4
_PATIENCE = 20.0


class Looked(NamedTuple):
    """What a worker said of its share: how many things it has, the answer, and what it wrote.

    `answer` is an error where it could not.
    """

    share: int
    answer: Any | OrlopError
    data: bytes = b""


def look(forks: Spawner, job: str, name: str, things: Sequence[Any]) -> list[Looked]:
    """Have workers do a job on their shares of `things`, which JSON can hold.

    A job is one of `Worker`: its share is in the first file, and the second is for what it writes.
    """
    count = min(_WORKERS, len(os.sched_getaffinity(0)), -(-len(things) // _SHARE))
    shares = [things[number::count] for number in range(count)]
    if len(shares) <= 1:
        return [_look(forks, job, name, each) for each in shares]
    with ThreadPoolExecutor(len(shares), thread_name_prefix=name) as pool:
        return list(pool.map(lambda share: _look(forks, job, name, share), shares))


def _look(forks: Spawner, job: str, name: str, share: Sequence[Any]) -> Looked:
    try:
        with ExitStack() as stack:
            source, sink = (stack.enter_context(memory_file(name)) for _ in range(2))
            write_all(source, json.dumps(share).encode())
            worker = stack.enter_context(Worker(forks, job, {}, [source, sink], name=name))
            timer = threading.Timer(_PATIENCE, worker.cancel)
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
            return Looked(len(share), worker.result(), read_all(sink))
    except OrlopError as error:
        return Looked(len(share), error)
    except OSError as error:  # no descriptors, or no memory for the files
        return Looked(len(share), ResourceExhausted(f"{name}: {error}"))
