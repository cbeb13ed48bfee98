"""A small event loop for plain coroutines: descriptors, timers and signals, on one thread.

asyncio would do the same in three times the memory. Everything that a coroutine may await is a
`Promise`; a `Task` is the promise of a coroutine's result. The process sleeps in one epoll_wait,
without a time limit unless a timer is set: an idle loop never wakes up.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from orlop.shim.openings import Openings

T = TypeVar("T")
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_PAUSE = 0.1


class Promise(Generic[T]):
    """A value that comes later; any number of coroutines may await it."""

    __slots__ = ("_callbacks", "_error", "_loop", "_value", "done")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: list[Callable[[Promise[Any]], None]] = []
        self._error: BaseException | None = None
        self._value: T | None = None
        self.done = False

    def resolve(self, value: T) -> None:
        """Give the value; a promise keeps the first one."""
        if not self.done:
            self._value = value
            self._finish()

    def resolve_from(self, other: Promise[Any]) -> None:
        """A callback for `other.subscribe`: to be done, without a value, when the other is."""
        if not self.done:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Make every await raise `error`."""
        if not self.done:
            self._error = error
            self._finish()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def result(self) -> T:
        """The value, or raise the error, of a promise that is done."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def subscribe(self, callback: Callable[[Promise[Any]], None]) -> None:
        """Call `callback(self)` from the loop, once done."""
        if self.done:
            self._loop.soon(callback, self)
        else:
            self._callbacks.append(callback)

    def unsubscribe(self, callback: Callable[[Promise[Any]], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def __await__(self) -> Generator[Promise[Any], None, T]:
        if not self.done:
            yield self
        return self.result()

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._loop.soon(callback, self)


class Stopped(BaseException):
    """Raised inside a coroutine whose task was cancelled."""


class Task(Promise[T]):
    """A running coroutine, and the promise of its result."""

    __slots__ = ("_awaited", "_coroutine", "trace")

    def __init__(self, loop: Loop, coroutine: Coroutine[Promise[Any], None, T]) -> None:
        super().__init__(loop)
        self._coroutine = coroutine
        self._awaited: Promise[Any] | None = self
        self.trace = ""
        """The traceparent of the call that it serves, if that has one."""
        loop.soon(self._wake, self)

    def cancel(self) -> None:
        """Raise `Stopped` in the coroutine where it waits, now; no effect once done."""
        if self._awaited is not None and not self.done:
            self._awaited.unsubscribe(self._wake)
            self._step(lambda: self._coroutine.throw(Stopped()))

    def _wake(self, promise: Promise[Any]) -> None:
        if promise is self._awaited:
            self._step(lambda: self._coroutine.send(None))

    def _step(self, resume: Callable[[], Promise[Any]]) -> None:
        self._awaited = None
        self._loop.current = self
        try:
            awaited = resume()
        except StopIteration as stop:
            self.resolve(stop.value)
        except Stopped as stopped:
            self.fail(stopped)
        except Exception as error:  # noqa: BLE001 - the task carries it to whoever awaits
            if not self._callbacks:
                self._loop.report(error)
            self.fail(error)
        else:
            self._awaited = awaited
            awaited.subscribe(self._wake)


class Lock:
    """Mutual exclusion between coroutines, first come first served: `async with lock`."""

    __slots__ = ("_held", "_loop", "_queue")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._held = False
        self._queue: deque[Promise[None]] = deque()

    @property
    def held(self) -> bool:
        return self._held

    async def __aenter__(self) -> None:
        if self._held:
            turn: Promise[None] = Promise(self._loop)
            self._queue.append(turn)
            await turn
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        if self._queue:
            self._queue.popleft().resolve(None)
        else:
            self._held = False


class Loop:
    """Runs tasks until `stop()`.

    `report` is told of every exception that ends a task nobody awaits.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self.report = report
        self.current: Task[Any] | None = None
        """The task that runs, or ran last."""
        self.openings = Openings()
        self._epoll = select.epoll()
        self._ready: deque[tuple[Callable[[Promise[Any]], None], Promise[Any]]] = deque()
        self._watches: dict[int, list[tuple[int, Promise[None]]]] = {}
        self._timers: list[tuple[float, int, Promise[None]]] = []
        self._order = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._signal_pipe = self._signal_writer = -1
        self._running = False
        self._patience: float | None = None
        self._when_idle: Callable[[], None] = lambda: None

    def soon(self, callback: Callable[[Promise[Any]], None], promise: Promise[Any]) -> None:
        """Call `callback(promise)` in this or the next turn of the loop."""
        self._ready.append((callback, promise))

    def spawn(self, coroutine: Coroutine[Promise[Any], None, T]) -> Task[T]:
        """Run a coroutine beside the others."""
        return Task(self, coroutine)

    def run(self) -> None:
        self._running = True
        while self._running:
            self._run_ready()
            if self._running:
                self._poll()

    def stop(self) -> None:
        """Make `run` return after the current turn."""
        self._running = False

    def close(self) -> None:
        """Give back what the loop itself holds; it cannot run again."""
        self._epoll.close()
        self.openings.close()
        if self._signal_pipe >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._signal_pipe)
            os.close(self._signal_writer)

    # Rest

    def when_idle(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once when nothing has happened for so long."""
        self._patience, self._when_idle = seconds, callback

    def interests(self) -> dict[int, int]:
        """The descriptors that tasks wait for, with the epoll masks, but for the loop's own."""
        found: dict[int, int] = {}
        for fd, watches in self._watches.items():
            if fd != self._signal_pipe:
                for mask, _ in watches:
                    found[fd] = found.get(fd, 0) | mask
        return found

    @property
    def timed(self) -> bool:
        """Whether something is going to happen at a certain time."""
        return self._time_left() is not None

    # Descriptors

    async def readable(self, fd: int) -> None:
        """Wait until reading would not block."""
        await self.event(fd, select.EPOLLIN)

    async def writable(self, fd: int) -> None:
        """Wait until writing would not block."""
        await self.event(fd, select.EPOLLOUT)

    async def event(self, fd: int, mask: int) -> None:
        """Wait for an epoll event; errors and hang-ups always count."""
        watch = self.watch(fd, mask)
        try:
            await watch
        finally:
            self.unwatch(fd, watch)

    def watch(self, fd: int, mask: int) -> Promise[None]:
        """A promise of the next event; end it with `unwatch`. A regular file is always ready."""
        promise: Promise[None] = Promise(self)
        watches = self._watches.setdefault(fd, [])
        watches.append((mask, promise))
        try:
            self._arm(fd, watches, new=len(watches) == 1)
        except (PermissionError, FileNotFoundError):
            promise.resolve(None)
        except OSError:
            self.unwatch(fd, promise)
            raise
        return promise

    def unwatch(self, fd: int, promise: Promise[None]) -> None:
        watches = self._watches.get(fd, [])
        watches[:] = [entry for entry in watches if entry[1] is not promise]
        try:
            if watches:
                self._arm(fd, watches, new=False)
            else:
                self._watches.pop(fd, None)
                self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # a regular file, or already closed

    def _arm(self, fd: int, watches: list[tuple[int, Promise[None]]], *, new: bool) -> None:
        mask = 0
        for wanted, _ in watches:
            mask |= wanted
        if new:
            self._epoll.register(fd, mask)
        else:
            self._epoll.modify(fd, mask)

    async def read(self, fd: int, size: int) -> bytes:
        """Read from a non-blocking descriptor; b"" at its end, or when a terminal hung up."""
        while True:
            await self.readable(fd)
            try:
                return os.read(fd, size)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def write(self, fd: int, data: bytes) -> None:
        """Write all of `data` to a non-blocking descriptor; raises OSError if it is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await self.writable(fd)

    # Time

    async def sleep(self, seconds: float) -> None:
        await self.timer(seconds)

    def timer(self, seconds: float) -> Promise[None]:
        """A promise resolved after `seconds`; resolve it earlier to drop the timer."""
        promise: Promise[None] = Promise(self)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), promise))
        return promise

    async def within(self, seconds: float, promise: Promise[Any]) -> bool:
        """Wait for `promise`, but no longer than `seconds`; whether it is done."""
        timer = self.timer(seconds)

        def finished(_: Promise[Any]) -> None:
            timer.resolve(None)

        promise.subscribe(finished)
        await timer
        promise.unsubscribe(finished)
        return promise.done

    async def after_failed_accept(self, error: OSError) -> None:
        """Wait a moment if there was no room for a client, who still knocks: some may be made."""
        if error.errno in _NO_ROOM:
            await self.sleep(_PAUSE)

    # Signals

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call `callback` from the loop after the signal arrived, once for any number of them."""
        if not self._signals:
            self._signal_pipe, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
            self.spawn(self._take_signals(self._signal_pipe))
        self._signals[number] = callback
        signal.signal(number, _note_signal)

    async def _take_signals(self, reader: int) -> None:
        while True:
            for number in set(await self.read(reader, 4096)):
                self._signals[number]()

    # The turn of the loop

    def _run_ready(self) -> None:
        while self._ready:
            callback, promise = self._ready.popleft()
            callback(promise)

    def _poll(self) -> None:
        left, patience = self._time_left(), self._patience
        if patience is None or (left is not None and left < patience):
            happened = self._epoll.poll(left)
        else:
            happened = self._epoll.poll(patience)
            if not happened:
                self._patience = None
                self._when_idle()
        for fd, events in happened:
            for mask, promise in self._watches.get(fd, ()):
                if events & (mask | select.EPOLLERR | select.EPOLLHUP):
                    promise.resolve(None)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].resolve(None)

    def _time_left(self) -> float | None:
        while self._timers and self._timers[0][2].done:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())


def _note_signal(_number: int, _frame: object) -> None:
    """The wake-up descriptor carries the signal to the loop; there is nothing to do here."""
