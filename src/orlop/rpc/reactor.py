"""The one thread that reads all connections of a daemon: its clients' and its shims'."""

from __future__ import annotations

import heapq
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

_log = logging.getLogger(__name__)

Action = Callable[[], None]

# epoll takes no more than about 24 days, and a client may set any deadline.
_WAIT_MAX = 3600.0
_CROWD = 1024


class Readable(Protocol):
    """A socket, or anything else with a descriptor; negative once it is closed."""

    def fileno(self) -> int: ...


class Timer:
    """An action to come; `cancel` may be called from any thread, also too late."""

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None


class Reactor:
    """Calls an action when a socket is readable or a time has come; actions must not block.

    All methods may be called from any thread, also from an action. The owner calls `close`, which
    joins the thread.
    """

    def __init__(self, name: str = "orlop-reactor") -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)
        self._lock = threading.Lock()
        self._queue: list[Action] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._crowded = _CROWD
        self._running = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def register(self, sock: Readable, action: Action) -> None:
        """Call `action` whenever `sock` is readable, until `unregister`."""
        self._soon(lambda: self._register(sock, action))

    def unregister(self, sock: Readable, then: Action | None = None) -> None:
        """Stop watching `sock`; `then` runs on the thread when that is done (close it there)."""
        self._soon(lambda: self._unregister(sock, then))

    def call_later(self, seconds: float, action: Action) -> Timer:
        """Call `action` once, after `seconds`, unless it is cancelled or the reactor closed."""
        timer = Timer(action)
        due = time.monotonic() + seconds
        with self._lock:
            if len(self._timers) >= self._crowded:
                self._forget_cancelled()
            heapq.heappush(self._timers, (due, next(self._numbers), timer))
            first = self._timers[0][2] is timer
        if first:
            self._soon(lambda: None)  # the thread must wait for less
        return timer

    def _forget_cancelled(self) -> None:
        """Or those of calls with long deadlines pile up until these are due."""
        self._timers = [each for each in self._timers if each[2].action is not None]
        heapq.heapify(self._timers)
        self._crowded = max(_CROWD, 2 * len(self._timers))

    def close(self) -> None:
        """Stop the thread; pending changes are still made."""
        self._soon(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _soon(self, action: Action) -> None:
        with self._lock:
            if self._wake_write >= 0:
                self._queue.append(action)
                try:
                    os.write(self._wake_write, b"x")
                except BlockingIOError:
                    pass  # a full pipe wakes as well
                return
        action()  # closed: nothing is watched any more, so there is no thread to mind

    def _register(self, sock: Readable, action: Action) -> None:
        if sock.fileno() < 0 or not self._running:
            return
        try:
            self._selector.register(sock, selectors.EVENT_READ, action)
        except KeyError:
            self._selector.modify(sock, selectors.EVENT_READ, action)

    def _unregister(self, sock: Readable, then: Action | None) -> None:
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError, RuntimeError):
            pass  # it was not, or is no longer, watched
        if then is not None:
            then()

    def _stop(self) -> None:
        self._running = False

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        with self._lock:
            queue, self._queue = self._queue, []
        for action in queue:
            self._guard(action)

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._until_timer()):
                self._guard(key.data)
            for action in self._due():
                self._guard(action)
        with self._lock:
            os.close(self._wake_write)
            self._wake_write = -1
        self._drain_wake()
        os.close(self._wake_read)
        self._selector.close()

    def _until_timer(self) -> float | None:
        with self._lock:
            while self._timers and self._timers[0][2].action is None:
                heapq.heappop(self._timers)
            if not self._timers:
                return None
            return min(max(0.0, self._timers[0][0] - time.monotonic()), _WAIT_MAX)

    def _due(self) -> list[Action]:
        due: list[Action] = []
        with self._lock:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                action = heapq.heappop(self._timers)[2].action
                if action is not None:
                    due.append(action)
        return due

    @staticmethod
    def _guard(action: Action) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - one connection's fault must not end the others
            _log.exception("action of the reactor failed")
