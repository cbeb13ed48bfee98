"""Messages on their way from a connection's reader to the handler of one call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from orlop.errors import OrlopError
from orlop.rpc.context import CallContext

# Bytes that wait for a handler: above the first the connection is not read, until below the second.
HIGH, LOW = 8 << 20, 2 << 20
# What a message costs beside its payload, so that empty ones are bounded too.
_OVERHEAD = 256


class Inbox:
    """What a client streams to one call.

    `put`, `end` and `fail` come from the reader and do not block; when the handler lags, `pause` is
    called, and `resume` when it has caught up or ended.
    """

    def __init__(
        self, context: CallContext, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self._context = context
        self._pause = pause
        self._resume = resume
        self._changed = threading.Condition()
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: OrlopError | None = None
        context.on_cancel(self._wake)

    def put(self, payload: bytes) -> None:
        with self._changed:
            if self._ended:
                return
            self._messages.append(payload)
            self._size += len(payload) + _OVERHEAD
            self._changed.notify()
            if self._paused or self._size <= HIGH:
                return
            self._paused = True
        self._pause()

    def end(self) -> None:
        """No more messages will come."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self, error: OrlopError) -> None:
        """What came next was not fit to be read: `messages` raises `error` when it gets there."""
        with self._changed:
            if not self._ended:
                self._error, self._ended = error, True
            self._changed.notify()

    def close(self) -> None:
        """The handler has ended: drop what it has not read, and what is still to come."""
        with self._changed:
            self._ended = True
            self._messages.clear()
            paused, self._paused = self._paused, False
            self._changed.notify()  # whoever still reads for the handler
        if paused:
            self._resume()

    def messages(self) -> Iterator[bytes]:
        """The messages until their end; raises Cancelled or DeadlineExceeded when the call does."""
        while (payload := self._next()) is not None:
            yield payload

    def _next(self) -> bytes | None:
        with self._changed:
            while not (self._messages or self._ended or self._context.cancelled):
                self._changed.wait()
            self._context.check()
            if not self._messages:
                if self._error is not None:
                    raise self._error
                return None
            payload = self._messages.popleft()
            self._size -= len(payload) + _OVERHEAD
            if not self._paused or self._size > LOW:
                return payload
            self._paused = False
        self._resume()
        return payload

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()
