"""The replies to one ttrpc call, and how a caller takes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol

from orlop.errors import Cancelled, Internal, OrlopError, ResourceExhausted
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Frame


class Replies:
    """What has come for one call and has not been taken. The channel's lock guards it.

    Of a `single` reply no more than the first frame is kept, whatever the peer sends.
    """

    __slots__ = ("changed", "error", "frames", "number", "single", "waiting")

    def __init__(self, number: int, lock: threading.Lock, *, single: bool) -> None:
        self.number = number
        self.single = single
        self.changed = threading.Condition(lock)
        self.frames: deque[Frame] = deque()
        self.error: OrlopError | None = None
        self.waiting = False

    def put(self, frame: Frame) -> None:
        if not (self.single and self.frames):
            self.frames.append(frame)
            self.changed.notify()

    def take(self) -> Frame | None:
        """The next frame, if one is here; raises the call's error after the last."""
        if self.frames:
            return self.frames.popleft()
        if self.error is not None:
            raise self.error
        return None


class Source(Protocol):
    """What a call needs of its channel."""

    def wait(self, replies: Replies, deadline: float | None) -> Frame: ...
    def fail(self, replies: Replies, error: OrlopError) -> None: ...
    def forget(self, replies: Replies) -> None: ...


class TtrpcCall:
    """A unary call under way. `result` is asked for once; `cancel` may come from any thread."""

    def __init__(self, source: Source, replies: Replies) -> None:
        self._source = source
        self._replies = replies

    def result(self, timeout: float | None = None) -> bytes:
        """Wait for the answer; errors as those of `orlop.rpc.client.Channel`."""
        try:
            frame = self._source.wait(self._replies, deadline_after(timeout))
        finally:
            self._source.forget(self._replies)
        if frame.type != protocol.RESPONSE:
            raise Internal(f"frame of type {frame.type} in place of a response")
        return protocol.decode_response(frame.payload)

    def cancel(self) -> None:
        """Stop waiting: `result` raises Cancelled. The peer is not told."""
        self._source.fail(self._replies, Cancelled())


class TtrpcStream:
    """The responses of a streaming call.

    Closing it early leaves the rest unread: ttrpc has no way to tell the peer, except by closing
    the connection.
    """

    def __init__(self, source: Source, replies: Replies, timeout: float | None) -> None:
        self._source = source
        self._replies = replies
        self._deadline = deadline_after(timeout)
        self._ended = False

    def __iter__(self) -> TtrpcStream:
        return self

    def __next__(self) -> bytes:
        while not self._ended:
            try:
                payload = self._message(self._source.wait(self._replies, self._deadline))
            except OrlopError:
                self._end()
                raise
            if payload is not None:
                return payload
        raise StopIteration

    def _message(self, frame: Frame) -> bytes | None:
        """The message in a frame, None if there is none in it."""
        if frame.type == protocol.RESPONSE:
            self._end()
            return protocol.decode_response(frame.payload) or None
        if frame.payload is None:
            raise ResourceExhausted(
                f"message is longer than the {protocol.PAYLOAD_MAX} bytes of ttrpc"
            )
        if frame.flags & protocol.REMOTE_CLOSED:
            self._end()
        return None if frame.flags & protocol.NO_DATA else frame.payload

    def _end(self) -> None:
        self._ended = True
        self._source.forget(self._replies)

    def close(self) -> None:
        """Take no more; a thread that waits in `next` raises Cancelled. Idempotent."""
        if not self._ended:
            self._end()
            self._source.fail(self._replies, Cancelled())


def deadline_after(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
