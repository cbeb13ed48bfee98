"""Where the bytes of a process go to and come from, by URI.

A path or `fifo://` is the client's fifo, `file://` a file to append to, `binary://` a logger
process, and "" nothing. Without a terminal the process writes into the client's fifo itself: no
copy, and a client may detach and come back (stderr is the exception, see `HeldSink`). The shim
keeps a read end, so that the process never blocks in open nor gets SIGPIPE, and the bytes wait in
the pipe while no client is there. A file is the host's: the process has a pipe, which is copied.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from orlop.errors import InvalidArgument, NotFound, OrlopError, Unknown
from orlop.shim.loop import Loop, Promise, Task
from orlop.shim.rest import NONE, Busy, Luggage
from orlop.shim.runc import NULL, OURS_ALONE

CHUNK = 64 * 1024
_PIPE_SIZE = 128 * 1024
_LOOK = 0.2  # seconds
OPEN_DELAY = 0.25
"""Seconds after which stdin is opened although the process has not been started yet."""


@dataclass(frozen=True, slots=True)
class Stdio:
    """The URIs that a client gave for one process. With a terminal, stdout carries everything."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Sink:
    """Where one output stream goes. This one is /dev/null, and the base of the others.

    `fd` is what the process, or the copier of its console, writes to.
    """

    kind = "null"
    fd = NULL

    def freeze(self, luggage: Luggage) -> list[Any]:
        """What `thaw_sink` makes it from again; Busy while bytes are in this process's hands."""
        return [self.kind]

    def child_has_it(self) -> None:
        """The process has its own copy of `fd` now: close ours, so that its end is the end."""

    async def finish(self) -> None:
        """After the process ended: return when all of its output has arrived."""

    def close(self) -> None:
        """Let go of everything; idempotent."""


class FileSink(Sink):
    """Appends to a file, or to a fifo that has its reader: its descriptor."""

    kind = "file"

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: str, *, copied: bool) -> FileSink:
        """The file is made, with its folders, if need be.

        Only a fifo goes to the process itself, unless its output is `copied`, and then blocks: of
        any other file, which may be a terminal that is stopped, this process is the writer.

        Raises OSError, ENXIO for a fifo that nobody reads: to wait for one would hold up the shim.
        """
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        file = cls(os.open(path, flags, 0o644))
        os.set_blocking(file.fd, file.is_fifo and not copied)
        return file

    @property
    def is_fifo(self) -> bool:
        return stat.S_ISFIFO(os.fstat(self.fd).st_mode)

    def freeze(self, luggage: Luggage) -> list[Any]:
        return [self.kind, luggage.put(self.fd)] if self.fd != NULL else [Sink.kind]

    def child_has_it(self) -> None:
        self.close()

    async def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self.fd != NULL:
            os.close(self.fd)
            self.fd = NULL


class FifoSink(Sink):
    """A client's fifo.

    The write end may be non-blocking (for a copier); the process itself gets a blocking one. After
    the process ended, a client that opens the fifo only now still finds the bytes and their end.
    """

    kind = "fifo"

    def __init__(self, loop: Loop, reader: int, writer: int) -> None:
        self._loop = loop
        self._reader = reader
        self._writer = writer
        self._handover: Task[None] | None = None
        if reader != NONE:
            OURS_ALONE.add(reader)  # a copy in a runtime would pass for a client

    @classmethod
    def open(cls, loop: Loop, path: str, *, copied: bool) -> FifoSink:
        # The read end first: it makes both opens return at once, client or no client.
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not copied:
            _widen(reader)
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_NONBLOCK if copied else 0)
        return cls(loop, reader, _reopen(reader, flags))

    def freeze(self, luggage: Luggage) -> list[Any]:
        handing_over = self._handover is not None and not self._handover.done
        return [self.kind, luggage.put(self._reader), luggage.put(self._writer), handing_over]

    @classmethod
    def thaw(cls, loop: Loop, luggage: Luggage, state: list[Any]) -> FifoSink:
        _, reader, writer, handing_over = state
        sink = cls(loop, luggage.claim(reader), luggage.claim(writer))
        if handing_over:
            sink._handover = loop.spawn(sink._hand_over())
        return sink

    @property
    def fd(self) -> int:  # type: ignore[override]
        return self._writer

    def child_has_it(self) -> None:
        if self._writer != NONE:
            os.close(self._writer)
            self._writer = NONE

    async def finish(self) -> None:
        self.child_has_it()
        await self._loop.event(self._reader, 0)  # hang-up: nobody writes any more
        self._writer = _reopen(self._reader, os.O_WRONLY | os.O_CLOEXEC)
        self._close_reader()
        if self._client_reads():
            self.child_has_it()
        else:
            self._handover = self._loop.spawn(self._hand_over())

    def close(self) -> None:
        if self._handover is not None:
            self._handover.cancel()
        self.child_has_it()
        self._close_reader()

    def _close_reader(self) -> None:
        if self._reader != NONE:
            OURS_ALONE.discard(self._reader)
            os.close(self._reader)
            self._reader = NONE

    def _client_reads(self) -> bool:
        """Whether anybody reads, our read end being closed: poll knows a pipe without readers."""
        poll = select.poll()
        poll.register(self._writer, 0)
        return not poll.poll(0)

    async def _hand_over(self) -> None:
        """Keep the pipe and its bytes until a client opens it, then let it see their end."""
        while not self._client_reads():
            try:
                await self._loop.openings.until(self._loop, self._client_reads, self._writer)
            except OSError:  # for want of descriptors or inotify, all of which others may have
                await self._loop.sleep(_LOOK)
        self.child_has_it()


def _widen(pipe: int) -> None:
    """Let more bytes wait in a fifo: writer and reader wake each other less often.

    All pipes of a user count, and beyond pipe-user-pages-soft (16,384 pages) those that root in a
    container makes become tiny (pipe(7)). A container's output takes 64 pages so, with stderr's
    pipe and fifo; by a shim that copies both streams it takes as many.
    """
    try:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < _PIPE_SIZE:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass  # a user's pipes have all the memory that they may have; or it is no fifo


class HeldSink(Sink):
    """A pipe whose bytes go on to a client's fifo or file once the process has been started.

    runc writes its own errors to the stderr that it is given, and the client gets them in the
    answer of the call: they must not come twice. And if root in a container had the file itself, it
    could truncate it, or make it a program that runs as root on the host.
    """

    kind = "held"

    def __init__(self, loop: Loop, target: Sink, reader: int, writer: int) -> None:
        self._loop = loop
        self._target = target
        self._reader = reader
        self.fd = writer
        self._copy: Copy | None = None

    @classmethod
    def open(cls, loop: Loop, target: Sink) -> HeldSink:
        """The target, which this process must be able to write to without waiting, is its own."""
        try:
            return cls(loop, target, *os.pipe2(os.O_CLOEXEC))
        except OSError:
            target.close()
            raise

    def freeze(self, luggage: Luggage) -> list[Any]:
        if self._copy is None:
            raise Busy  # it is being handed to the process
        copying = self._copy.freeze()
        return [self.kind, self._target.freeze(luggage), luggage.put(self._reader), copying]

    @classmethod
    def thaw(cls, loop: Loop, luggage: Luggage, state: list[Any]) -> HeldSink:
        _, target, reader, copying = state
        sink = cls(loop, thaw_sink(loop, luggage, target), luggage.claim(reader), NULL)
        sink._copy = Copy(loop, sink._reader, sink._target, ended=not copying)
        return sink

    def child_has_it(self) -> None:
        os.close(self.fd)
        self.fd = NULL
        os.set_blocking(self._reader, False)
        self._copy = Copy(self._loop, self._reader, self._target)

    async def finish(self) -> None:
        if self._copy is not None:
            await self._copy.ended()
        await self._target.finish()

    def close(self) -> None:
        if self._copy is not None:
            self._copy.cancel()
        if self.fd != NULL:
            os.close(self.fd)
            self.fd = NULL
        if self._reader != NONE:
            os.close(self._reader)
            self._reader = NONE
        self._target.close()


class Copy:
    """Copies from a non-blocking descriptor to a sink until the former has ended.

    What the sink does not take, as a full disk, is lost: the process must not be held up for ever.
    """

    def __init__(self, loop: Loop, source: int, sink: Sink, *, ended: bool = False) -> None:
        self._loop = loop
        self._holding = False
        self._task = None if ended else loop.spawn(self._run(source, sink))

    def freeze(self) -> bool:
        """Whether it goes on; Busy while bytes that were read are not yet written."""
        if self._holding:
            raise Busy
        return self._task is not None and not self._task.done

    async def ended(self) -> None:
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, source: int, sink: Sink) -> None:
        while data := await self._loop.read(source, CHUNK):
            self._holding = True
            try:
                await self._loop.write(sink.fd, data)
            except OSError:
                pass
            finally:
                self._holding = False


class StdinPump:
    """Copies the client's fifo to the process until CloseIO.

    The fifo is held open for writing too, so clients may come and go; CloseIO ends the copy once
    the fifo is empty, even if a client still has it open.

    It is opened when the process is started, or a moment after its creation: Debian's ctr loses its
    CloseIO if it can write all of its input before it has the answer to its Create.
    """

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path
        self._source = self._target = NONE
        self._closing = self._holding = False
        self._may_open = self._more = Promise[None](loop)
        self._task: Task[None] | None = None

    def freeze(self, luggage: Luggage) -> list[Any] | None:
        """What `thaw` makes it from again, None once it has ended."""
        if self._task is not None and self._task.done:
            return None
        if self._holding or self._source == NONE:
            raise Busy
        fds = luggage.put(self._source), luggage.put(self._target)
        return [self._path, *fds, self._closing]

    @classmethod
    def thaw(cls, loop: Loop, luggage: Luggage, state: list[Any]) -> StdinPump:
        path, source, target, closing = state
        pump = cls(loop, path)
        pump._source, pump._target = luggage.claim(source), luggage.claim(target)
        pump._closing = closing
        pump._may_open.resolve(None)
        pump._task = loop.spawn(pump._copy())
        return pump

    def start(self, target: int) -> None:
        """Copy to the non-blocking descriptor `target`, which this pump then owns."""
        self._target = target
        self._may_open = self._loop.timer(OPEN_DELAY)
        self._task = self._loop.spawn(self._copy())

    def begin(self) -> None:
        """The process has been started: do not wait any longer."""
        self._may_open.resolve(None)

    def end(self) -> None:
        """CloseIO: the process gets end of file after what is in the fifo now."""
        self._closing = True
        self._more.resolve(None)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._shut()

    async def _copy(self) -> None:
        try:
            await self._may_open
            if self._source == NONE:
                self._source = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            while True:
                data = self._take()
                if data:
                    self._holding = True
                    await self._loop.write(self._target, data)
                    self._holding = False
                elif data == b"" or self._closing:
                    return
                else:
                    await self._wait()
        except OSError:
            pass  # the process has closed its stdin, or ended
        finally:
            self._shut()

    def _take(self) -> bytes | None:
        try:
            return os.read(self._source, CHUNK)
        except BlockingIOError:
            return None

    async def _wait(self) -> None:
        self._more = self._loop.watch(self._source, select.EPOLLIN)
        try:
            await self._more
        finally:
            self._loop.unwatch(self._source, self._more)

    def _shut(self) -> None:
        for fd in (self._source, self._target):
            if fd != NONE:
                os.close(fd)
        self._source = self._target = NONE


def open_sink(loop: Loop, uri: str, *, copied: bool = False, held: bool = False) -> Sink:
    """The sink of a stdout or stderr URI other than `binary://`; see `FifoSink` and `HeldSink`.

    `copied` tells that this process writes to it, and must not block.

    Raises NotFound for a missing fifo, InvalidArgument for a scheme that is not known.
    """
    scheme, path = split_uri(uri)
    if scheme not in ("fifo", "file"):
        raise InvalidArgument(f'unknown stdio scheme "{scheme}"')
    if not path:
        return Sink()
    try:
        if scheme == "file" or not stat.S_ISFIFO(os.stat(path).st_mode):
            file = FileSink.open(path, copied=copied)
            return file if copied or file.is_fifo else HeldSink.open(loop, file)
        fifo = FifoSink.open(loop, path, copied=copied or held)
        return HeldSink.open(loop, fifo) if held else fifo
    except OSError as error:
        raise open_error(path, error) from error


def thaw_sink(loop: Loop, luggage: Luggage, state: list[Any]) -> Sink:
    """The sink that was frozen; a logger's are the logger's own to thaw."""
    match state:
        case ["file", fd]:
            return FileSink(luggage.claim(fd))
        case ["fifo", *_]:
            return FifoSink.thaw(loop, luggage, state)
        case ["held", *_]:
            return HeldSink.thaw(loop, luggage, state)
    return Sink()


def split_uri(uri: str) -> tuple[str, str]:
    """The scheme and path of a stdio URI; a bare path is a fifo."""
    if "://" not in uri:
        return "fifo", uri
    parts = urlsplit(uri)
    return parts.scheme, unquote(parts.path)


def open_error(path: str, error: OSError) -> OrlopError:
    """What to tell a client whose stdio path cannot be opened."""
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileNotFoundError):
        return NotFound(f'stdio "{path}": {reason}')
    return Unknown(f'open stdio "{path}": {reason}')


def _reopen(fd: int, flags: int) -> int:
    """Another descriptor of the same pipe, even if its name is gone."""
    return os.open(f"/proc/self/fd/{fd}", flags)
