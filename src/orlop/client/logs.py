"""Log files of detached containers: one file a container, standard output and error together."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from orlop.client import log_files
from orlop.client.connection import Connection
from orlop.client.containers import wait
from orlop.errors import NotFound, OrlopError
from orlop.wire.services import containers_pb2

_CHUNK = 1 << 20
_POLL = 0.1


def read(
    connection: Connection,
    container: containers_pb2.Container,
    *,
    tail: int | None = None,
    follow: bool = False,
) -> Iterator[bytes]:
    """The log in chunks, from the last `tail` lines on; with `follow` until the container ends.

    Raises NotFound for a container that has no log because it ran attached.
    """
    uri = container.labels.get(log_files.LABEL, "")
    if not uri.startswith("file://"):
        raise NotFound(f'log of container "{container.id}": it did not run detached')
    try:
        fd = os.open(uri.removeprefix("file://"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f'log "{uri}" of container "{container.id}"') from None
    try:
        if tail is not None:
            os.lseek(fd, _tail_offset(fd, tail), os.SEEK_SET)
        yield from _to_end(fd)
        if follow:
            yield from _follow(connection, container.id, fd)
    finally:
        os.close(fd)


def _to_end(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK):
        yield chunk


def _follow(connection: Connection, container: str, fd: int) -> Iterator[bytes]:
    """New bytes as they come, until the task has ended and all is read."""
    ended = threading.Event()

    def watch() -> None:
        try:
            wait(connection, container)
        except OrlopError:
            pass  # no task: nothing more will come
        ended.set()

    threading.Thread(target=watch, name="orlop-wait", daemon=True).start()
    while not ended.wait(_POLL):
        yield from _to_end(fd)
    yield from _to_end(fd)


def _tail_offset(fd: int, lines: int) -> int:
    """Where the last `lines` lines begin."""
    end = os.lseek(fd, 0, os.SEEK_END)
    if lines <= 0:
        return end
    position, wanted = end, lines
    last = True
    while position > 0:
        start = max(0, position - _CHUNK)
        block = os.pread(fd, position - start, start)
        index = len(block)
        if last and block.endswith(b"\n"):
            index -= 1  # the newline that ends the last line begins none
        last = False
        while (index := block.rfind(b"\n", 0, index)) >= 0:
            wanted -= 1
            if wanted <= 0:
                return start + index + 1
        position = start
    return 0
