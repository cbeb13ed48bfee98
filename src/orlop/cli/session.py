"""An attached process: its streams copied to and from ours, signals forwarded, until it ends."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from orlop.cli.terminal import raw_mode, window_size
from orlop.client import Connection
from orlop.client.stdio import Fifos
from orlop.errors import NotFound, OrlopError
from orlop.wire.services import tasks_pb2

_CHUNK = 64 * 1024
_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Session:
    """One attached process of a task: the init process, or an exec with `exec_id`.

    Create it before the process starts, call `start()`, then `run()` for the exit status.
    """

    def __init__(
        self, connection: Connection, container: str, fifos: Fifos, *, exec_id: str = ""
    ) -> None:
        self._connection = connection
        self._container = container
        self._exec_id = exec_id
        self._fifos = fifos
        self._selector = selectors.DefaultSelector()
        self._pending = b""
        self._exit: int | None = None
        self._failure: OrlopError | None = None
        # Sockets, not descriptors: a late write to a closed one fails, and hits nobody else's.
        self._wake_read, self._wake_write = socket.socketpair()
        self._waiter = threading.Thread(target=self._wait, name="orlop-wait", daemon=True)

    def start(self) -> None:
        """Wait for the process's end from now on, and start it."""
        self._waiter.start()
        self._connection.tasks.start(
            tasks_pb2.StartRequest(container_id=self._container, exec_id=self._exec_id)
        )

    def run(self) -> int:
        """Copy until the process has ended and its output is drained; its exit status."""
        with self._terminal(), self._signals():
            self._watch(self._wake_read.fileno(), self._woken)
            self._watch(self._fifos.stdout_fd, lambda: self._copy_out(self._fifos.stdout_fd, 1))
            self._watch(self._fifos.stderr_fd, lambda: self._copy_out(self._fifos.stderr_fd, 2))
            if self._fifos.stdin_fd is not None:
                self._watch(0, self._copy_in)
            self._loop()
        if self._failure is not None:
            raise self._failure
        assert self._exit is not None
        return self._exit

    def close(self) -> None:
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _wait(self) -> None:
        try:
            answer = self._connection.tasks.wait(
                tasks_pb2.WaitRequest(container_id=self._container, exec_id=self._exec_id)
            )
            self._exit = answer.exit_status
        except OrlopError as error:
            self._failure = error
        with suppress(OSError):  # nobody waits any more: the process could not be started
            self._wake_write.send(b"x")

    def _loop(self) -> None:
        while True:
            ended = self._exit is not None or self._failure is not None
            events = self._selector.select(0 if ended else None)
            if ended and not any(key.fd in self._outputs() for key, _ in events):
                return
            for key, _ in events:
                key.data()

    def _outputs(self) -> tuple[int | None, int | None]:
        return self._fifos.stdout_fd, self._fifos.stderr_fd

    def _watch(self, fd: int | None, action: Callable[[], None]) -> None:
        if fd is None:
            return
        try:
            self._selector.register(fd, selectors.EVENT_READ, action)
        except PermissionError:
            # epoll takes no regular files (`orlop run -i … < file`): they are always ready.
            self._feed_file(fd)

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def _woken(self) -> None:
        self._wake_read.recv(_CHUNK)

    def _copy_out(self, source: int | None, target: int) -> None:
        assert source is not None
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._unwatch(source)
            return
        _write_all(target, data)

    def _copy_in(self) -> None:
        data = os.read(0, _CHUNK)
        if data:
            self._feed(data)
        else:
            self._unwatch(0)
            self._close_stdin()

    def _feed(self, data: bytes) -> None:
        """Write to the process's stdin; what does not fit is kept, and our stdin left unread."""
        assert self._fifos.stdin_fd is not None
        try:
            sent = os.write(self._fifos.stdin_fd, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._pending = data[sent:]
            self._unwatch(0)
            self._selector.register(self._fifos.stdin_fd, selectors.EVENT_WRITE, self._feed_pending)

    def _feed_pending(self) -> None:
        assert self._fifos.stdin_fd is not None
        sent = os.write(self._fifos.stdin_fd, self._pending)
        self._pending = self._pending[sent:]
        if not self._pending:
            self._selector.unregister(self._fifos.stdin_fd)
            self._watch(0, self._copy_in)

    def _feed_file(self, fd: int) -> None:
        """Copy a regular file from a thread: it may fill the pipe before anybody reads."""

        def copy() -> None:
            stdin = self._fifos.stdin_fd
            assert stdin is not None
            os.set_blocking(stdin, True)
            while data := os.read(fd, _CHUNK):
                _write_all(stdin, data)
            self._close_stdin()

        threading.Thread(target=copy, name="orlop-stdin", daemon=True).start()

    def _close_stdin(self) -> None:
        try:
            self._connection.tasks.close_io(
                tasks_pb2.CloseIORequest(
                    container_id=self._container, exec_id=self._exec_id, stdin=True
                )
            )
        except NotFound:
            pass  # it ended meanwhile

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        if not self._fifos.streams.terminal or not os.isatty(0):
            yield
            return
        with raw_mode(0):
            self._resize()
            yield

    def _resize(self) -> None:
        width, height = window_size(1 if os.isatty(1) else 0)
        self._quietly(
            self._connection.tasks.resize_pty,
            tasks_pb2.ResizePtyRequest(
                container_id=self._container, exec_id=self._exec_id, width=width, height=height
            ),
        )

    def _kill(self, number: int) -> None:
        self._quietly(
            self._connection.tasks.kill,
            tasks_pb2.KillRequest(
                container_id=self._container, exec_id=self._exec_id, signal=number
            ),
        )

    @staticmethod
    def _quietly(call: Callable[[object], object], request: object) -> None:
        """A call about a process that may have ended meanwhile."""
        try:
            call(request)
        except OrlopError as error:
            if not isinstance(error, NotFound):
                print(f"orlop: {error}\r", file=sys.stderr)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Forward signals; they arrive as bytes on a pipe, so that calls are made from the loop."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        numbers = [*_FORWARDED, signal.SIGWINCH]
        before = {number: signal.signal(number, _ignore) for number in numbers}
        old_fd = signal.set_wakeup_fd(write)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._signalled(read))
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.unregister(read)
            os.close(read)
            os.close(write)

    def _signalled(self, pipe: int) -> None:
        for number in os.read(pipe, _CHUNK):
            if number == signal.SIGWINCH:
                if self._fifos.streams.terminal:
                    self._resize()
            elif number in _FORWARDED:
                self._kill(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wake-up pipe tells; but a signal without a handler would end us."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
