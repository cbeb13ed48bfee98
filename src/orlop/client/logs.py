"""What a container has printed, and goes on to print, out of its log."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from orlop.client import containers, log_files, restarts
from orlop.client.connection import Connection
from orlop.client.log_entries import Entry, is_within, parser
from orlop.client.log_reader import LogReader
from orlop.errors import InvalidArgument, NotFound, OrlopError, Unavailable
from orlop.rpc.convert import nanoseconds
from orlop.wire.services import containers_pb2, tasks_pb2
from orlop.wire.task_types_pb2 import STOPPED

_PAUSE = 0.2
_LOOK = 1.0  # without being told: a rotation is not told when it is half done
_WRITER_PATIENCE = 10.0
_RESTART_PATIENCE, _RESTART_LOOKS = 1.0, 10
_LONG = 10**20


class Wanted(NamedTuple):
    """Which part of a log: the last `tail` lines, what was printed from `since` on and before
    `until` (Unix time in nanoseconds); with `follow` also what is still to come."""

    tail: int | None = None
    since: int = 0
    until: int = _LONG
    follow: bool = False

    @property
    def by_time(self) -> bool:
        return self.since > 0 or self.until < _LONG


def read(
    connection: Connection, container: containers_pb2.Container, wanted: Wanted, taker: int = -1
) -> Iterator[list[Entry]]:
    """The log, in lists of entries. With `follow` it ends when the container has ended for good and
    all is read, or at `until`, or when the socket `taker` is hung up, if it is given.

    Raises NotFound for a container without a log, InvalidArgument for times of a log without any.
    """
    file = log_files.find(connection, container)
    if file.format == log_files.FILE and wanted.by_time:
        raise InvalidArgument(f'log of container "{container.id}" has no times: it is a plain file')
    reader = LogReader(file.path, parser(file.format), plain=file.format == log_files.FILE)
    with closing(reader):
        try:
            first = _begin(reader, wanted)
            if not wanted.follow:
                ended = _await_writer(connection, container.id, reader)
                if ended and wanted.tail is not None:  # the last lines may have come meanwhile
                    first = _begin(reader, wanted)
        except FileNotFoundError:
            raise NotFound(f'log "{file.path}" of container "{container.id}"') from None
        yield from _filtered([first], wanted)
        if wanted.follow:
            more = _follow(connection, container, reader, wanted.until, taker)
            yield from _filtered(more, wanted)
        else:
            yield from _filtered(reader.available(reader.extent()), wanted)


def _begin(reader: LogReader, wanted: Wanted) -> list[Entry]:
    if wanted.tail is not None:
        return reader.from_end(wanted.tail)
    reader.from_beginning(changed_since=wanted.since / 10**9)
    return []


def _filtered(
    batches: Iterator[list[Entry]] | list[list[Entry]], wanted: Wanted
) -> Iterator[list[Entry]]:
    for batch in batches:
        entries = batch
        if wanted.by_time:
            entries = [each for each in batch if is_within(each.time, wanted.since, wanted.until)]
        if entries:
            yield entries


def _await_writer(connection: Connection, container: str, reader: LogReader) -> bool:
    """Of a container that has ended, which is told, the log may be complete only in a moment."""
    try:
        request = tasks_pb2.GetRequest(container_id=container)
        if connection.tasks.get(request).process.status != STOPPED:
            return False
    except NotFound:
        pass
    deadline = time.monotonic() + _WRITER_PATIENCE
    while reader.is_written_to() and time.monotonic() < deadline:
        time.sleep(_PAUSE / 10)
    return True


def _follow(
    connection: Connection,
    container: containers_pb2.Container,
    reader: LogReader,
    until: int,
    taker: int,
) -> Iterator[list[Entry]]:
    """All that comes, until the end, or until nobody wants it any more."""
    from orlop.sys.inotify import IN_MODIFY, IN_MOVE_SELF, add_watch, open_inotify

    end = _End(connection, container)
    try:
        notify = open_inotify()
    except OSError:  # others may have all that there are
        notify = -1
    try:
        poll = select.poll()
        if notify >= 0:
            poll.register(notify, select.POLLIN)
        poll.register(end.fd, select.POLLIN)
        if taker >= 0:
            poll.register(taker, 0)  # a hang-up is told in any case
        watched = -1
        while True:
            ended = end.reached
            if watched != reader.inode:
                watched = reader.inode
                try:
                    add_watch(notify, f"/proc/self/fd/{reader.fd}", IN_MODIFY | IN_MOVE_SELF)
                    look = _LOOK
                except OSError:
                    look = _PAUSE
            yield from reader.available()
            if watched != reader.inode:
                continue
            if time.time_ns() >= until or (ended and not reader.is_written_to()):
                yield from reader.available()
                return
            left = max(0.0, (until - time.time_ns()) / 10**9)
            ready = {fd for fd, _ in poll.poll(min(_PAUSE if ended else look, left) * 1000)}
            if taker in ready:
                return
            if end.fd in ready:
                os.eventfd_read(end.fd)
            with suppress(OSError):
                os.read(notify, 65536)
    finally:
        if notify >= 0:
            os.close(notify)
        end.close()


class _End:
    """Tells, from a thread of its own, when a container has ended and will not be started again.

    `fd` is readable from then on. While no daemon answers it has not ended.
    """

    def __init__(self, connection: Connection, container: containers_pb2.Container) -> None:
        self._address = (connection.address, connection.namespace)
        self._id = container.id
        self._closed = threading.Event()
        self._connection: Connection | None = None
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.reached = False
        self._thread = threading.Thread(target=self._watch, name="orlop-wait", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._connection is not None:
            self._connection.close()
        self._thread.join()
        os.close(self.fd)

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                with Connection(*self._address) as self._connection:
                    # Whoever closes may just have missed this connection.
                    while not self._closed.is_set() and self._goes_on(self._connection):
                        self._closed.wait(_PAUSE)
                break
            except Unavailable:  # the container lives on, and so does its log
                self._closed.wait(_PAUSE)
            except OrlopError:
                break
        self.reached = True
        os.eventfd_write(self.fd, 1)

    def _goes_on(self, connection: Connection) -> bool:
        """Wait for the task's end; whether there will be another one."""
        try:
            status = containers.wait(connection, self._id)
        except NotFound:
            status = 0
        try:
            container = containers.get(connection, self._id)
        except NotFound:
            return False
        if restarts.comes_back(container, status):
            return True
        # The monitor counts a restart before it does it: this may be the last one, under way.
        return restarts.has_policy(container) and self._runs_again(connection, container)

    def _runs_again(self, connection: Connection, container: containers_pb2.Container) -> bool:
        request = tasks_pb2.GetRequest(container_id=self._id)
        wanted = container.labels.get(restarts.STATUS) == "running"
        for _ in range(_RESTART_LOOKS if wanted else 1):
            if self._closed.wait(_RESTART_PATIENCE):
                return False
            try:
                process = connection.tasks.get(request).process
                if process.status != STOPPED:
                    return True
                if nanoseconds(container.updated_at) <= nanoseconds(process.exited_at):
                    return False  # no restart was counted since
            except NotFound:  # the last task has gone, and the next one is being made
                if not self._has_record(connection):
                    return False
        return False

    def _has_record(self, connection: Connection) -> bool:
        try:
            containers.get(connection, self._id)
        except NotFound:
            return False
        return True
