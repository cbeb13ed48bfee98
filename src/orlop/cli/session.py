"""An attached process: its streams copied to and from ours, signals forwarded, until it ends."""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from orlop.cli.detaching import KeyWatch
from orlop.cli.each import told
from orlop.cli.terminal import raw_mode, window_size
from orlop.client import Connection
from orlop.client.stdio import Channel
from orlop.errors import NotFound, OrlopError, Unavailable
from orlop.wire.services import tasks_pb2

_CHUNK = 64 * 1024
# Seconds: between looks for a daemon that is away, for how long, and what is well again. That is
# longer than a daemon waits for what becomes of a lost shim.
_PAUSE, _PATIENCE, _STEADY = 0.2, 60.0, 30.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_MEANT = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
_FORWARDED = (*_ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT)


class Left(Exception):
    """The session was left while the process runs on; `status` is what to exit with."""

    def __init__(self, status: int = 0) -> None:
        super().__init__()
        self.status = status


class Session:
    """One attached process of a task: the init process, or an exec with `exec_id`.

    Create it before the process starts, call `start()`, or `watch()` if somebody else starts it;
    then `run()` for the exit status. `keys` lead out of a terminal's session; `on_interrupt` is
    called before a signal is passed on by which the user wants the process's end.

    A daemon that is away for a while is waited for: the process lives on, and so do its streams.
    Signals are passed on when it is back; a second one that is to end the process ends the session.
    """

    def __init__(
        self,
        connection: Connection,
        container: str,
        channel: Channel,
        *,
        exec_id: str = "",
        terminal: bool = False,
        keys: bytes = b"",
        forward_signals: bool = True,
        on_interrupt: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._container = container
        self._exec_id = exec_id
        self._channel = channel
        self._terminal = terminal
        self._keys = KeyWatch(keys) if keys else None
        self._forward_signals = forward_signals
        self._on_interrupt = on_interrupt
        # Not epoll, which takes no regular files (`orlop run -i … < file`).
        self._selector = selectors.PollSelector()
        self._pending = b""
        self._input_open = channel.takes_input
        self._unsent: list[int] = []
        self._pid = 0
        self._exit: int | None = None
        self._failure: OrlopError | None = None
        self._closed = threading.Event()
        # Sockets, not descriptors: a late write to a closed one fails, and hits nobody else's.
        self._wake_read, self._wake_write = socket.socketpair()
        self._waiter = threading.Thread(target=self._wait, name="orlop-wait", daemon=True)

    def start(self) -> None:
        """Wait for the process's end from now on, and start it."""
        self.watch()
        if self._terminal and os.isatty(0):
            self._resize()  # it may ask for the size at once, and only once
        request = tasks_pb2.StartRequest(container_id=self._container, exec_id=self._exec_id)
        self._pid = self._connection.tasks.start(request).pid

    def watch(self, pid: int = 0) -> None:
        """Wait for the process's end from now on; `pid` is its, where that is known."""
        self._pid = pid
        self._waiter.start()

    def run(self, *, redraw: bool = False) -> int:
        """Copy until the process has ended and its output is drained; its exit status.

        With `redraw` a program on a terminal is made to draw its screen again. Raises `Left` when
        the user leaves it.
        """
        with self._raw_terminal(redraw=redraw), self._signals():
            self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
            for fd in self._channel.outputs:
                self._selector.register(fd, selectors.EVENT_READ, self._output(fd))
            if self._channel.takes_input:
                self._selector.register(0, selectors.EVENT_READ, self._copy_in)
            self._loop()
        if self._failure is not None:
            raise self._failure
        assert self._exit is not None
        return self._exit

    def close(self) -> None:
        self._closed.set()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _wait(self) -> None:
        try:
            self._exit = self._status()
        except OrlopError as error:
            self._failure = error
        with suppress(OSError):  # nobody waits any more: the process could not be started
            self._wake_write.send(b"x")

    def _status(self) -> int:
        """The process's exit status, from this daemon or the next ones."""
        request = tasks_pb2.WaitRequest(container_id=self._container, exec_id=self._exec_id)
        deadline = 0.0
        while True:
            began = time.monotonic()
            try:
                if deadline:
                    self._check_identity()
                return int(self._connection.tasks.wait(request).exit_status)
            except Unavailable:
                now = time.monotonic()
                if now - began > _STEADY or not deadline:
                    deadline = now + _PATIENCE
                if now > deadline or not self._reconnect(deadline):
                    raise

    def _check_identity(self) -> None:
        """Raise NotFound where the process has ended unseen, and another one is in its place."""
        request = tasks_pb2.GetRequest(container_id=self._container, exec_id=self._exec_id)
        try:
            pid = self._connection.tasks.get(request).process.pid
        except NotFound:
            return  # a wait may still tell how it ended
        if self._pid and pid and pid != self._pid:
            raise NotFound(
                f'process {self._pid} of container "{self._container}" ended while orlopd was '
                "away, and the container was started again: nobody knows its exit status"
            )

    def _reconnect(self, deadline: float) -> bool:
        """Whether a daemon answers before the deadline."""
        while not self._closed.wait(_PAUSE):
            try:
                self._connection.reconnect()
            except Unavailable:
                if time.monotonic() > deadline:
                    return False
            else:
                return True
        return False

    def _loop(self) -> None:
        """Until the process has ended and so has its output, or none comes for a while."""
        while True:
            ended = self._exit is not None or self._failure is not None
            if ended:
                self._unwatch(0)  # a file would be ready for ever
                if self._channel.takes_input:
                    self._unwatch(self._channel.input)
                if not self._watched_outputs():
                    return
            pause = _PAUSE if self._unsent else None
            events = self._selector.select(self._channel.linger if ended else pause)
            if ended and not events:
                return
            if not ended:
                self._send_signals()
            for key, _ in events:
                key.data()

    def _watched_outputs(self) -> list[int]:
        watched = self._selector.get_map()
        return [fd for fd in self._channel.outputs if fd in watched]

    def _woken(self) -> None:
        self._wake_read.recv(_CHUNK)

    # Output and input

    def _output(self, fd: int) -> Callable[[], None]:
        return lambda: self._copy_out(fd)

    def _copy_out(self, fd: int) -> None:
        try:
            target, data = self._channel.receive(fd)
        except BlockingIOError:
            return
        if not data:
            self._unwatch(fd)
            return
        _write_all(target, data)

    def _copy_in(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""  # it was never open, or its terminal is gone
        if not data:
            self._input_open = False
            self._unwatch(0)
        elif self._keys is not None:
            data, leave = self._keys.feed(data)
            if leave:
                raise Left
            if not data:
                return
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Type `data`, or end the input; what does not fit is kept, and our stdin left unread."""
        try:
            rest = data[self._channel.send(data) :]
        except BlockingIOError:
            self._wait_for_room(data)
        except OSError:
            self._unwatch(0)  # nobody takes it any more
        else:
            if rest:
                self._wait_for_room(rest)

    def _wait_for_room(self, rest: bytes) -> None:
        self._pending = rest
        self._unwatch(0)
        if self._channel.input not in self._selector.get_map():
            self._selector.register(self._channel.input, selectors.EVENT_WRITE, self._feed_pending)

    def _feed_pending(self) -> None:
        self._unwatch(self._channel.input)
        data, self._pending = self._pending, b""
        if self._input_open:
            self._selector.register(0, selectors.EVENT_READ, self._copy_in)
        self._feed(data)

    def _unwatch(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    # Terminal and signals

    @contextmanager
    def _raw_terminal(self, *, redraw: bool) -> Iterator[None]:
        if not self._terminal or not os.isatty(0):
            yield
            return
        if redraw:
            with suppress(Unavailable):
                self._resize(more=1)
        self._forward(signal.SIGWINCH)
        if not self._channel.takes_input:
            yield
            return
        with raw_mode(0):
            yield

    def _resize(self, *, more: int = 0) -> None:
        width, height = window_size(1 if os.isatty(1) else 0)
        self._quietly(
            self._connection.tasks.resize_pty,
            tasks_pb2.ResizePtyRequest(
                container_id=self._container,
                exec_id=self._exec_id,
                width=width + more,
                height=height,
            ),
        )

    def _forward(self, number: int) -> None:
        """Pass a signal on, now or when orlopd is back; raises Left for the second in vain."""
        ending = number in _ENDING
        name = signal.Signals(number).name
        if ending and any(each in _ENDING for each in self._unsent):
            _tell(f"orlopd is away: {name} was not passed on, and the process runs on")
            raise Left(128 + number)
        if number not in self._unsent:
            self._unsent.append(number)
        self._send_signals()
        if ending and self._unsent:
            _tell(f"orlopd is away: {name} is passed on when it is back; again to leave")

    def _send_signals(self) -> None:
        """Pass on what is unsent, in order, as far as orlopd is there to take it."""
        with suppress(Unavailable):
            while self._unsent:
                self._send_signal(self._unsent[0])
                del self._unsent[0]

    def _send_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._resize()
            return
        if self._on_interrupt is not None and number in _MEANT:
            self._quietly(self._on_interrupt)
        self._quietly(
            self._connection.tasks.kill,
            tasks_pb2.KillRequest(
                container_id=self._container, exec_id=self._exec_id, signal=number
            ),
        )

    @staticmethod
    def _quietly(call: Callable[..., object], *request: object) -> None:
        """A call about a process that may have ended meanwhile; raises Unavailable."""
        try:
            call(*request)
        except NotFound:
            pass
        except Unavailable:
            raise
        except OrlopError as error:
            _tell(told(error))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Forward signals; they arrive as bytes on a pipe, so that calls are made from the loop."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        numbers = [*(_FORWARDED if self._forward_signals else _ENDING), signal.SIGWINCH]
        before = {number: signal.signal(number, _ignore) for number in numbers}
        old_fd = signal.set_wakeup_fd(write)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._signalled(read))
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._unwatch(read)
            os.close(read)
            os.close(write)

    def _signalled(self, pipe: int) -> None:
        for number in os.read(pipe, _CHUNK):
            if number == signal.SIGWINCH:
                if self._terminal:
                    self._forward(number)
            elif self._forward_signals and number in _FORWARDED:
                self._forward(number)
            elif number in _ENDING:
                raise Left(128 + number)


def _tell(what: str) -> None:
    print(f"orlop: {what}\r", file=sys.stderr)  # the terminal may be raw


def _ignore(number: int, frame: FrameType | None) -> None:
    """The wake-up pipe tells; but a signal without a handler would end us."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # whoever shares it with us does not want to wait
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
