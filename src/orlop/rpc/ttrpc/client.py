"""A ttrpc client: many calls at once on one connection.

A daemon's channels share a `Reactor`, which reads for them all. A channel without one has no thread
at all: whoever waits for an answer reads, for the others that wait as well.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from orlop.errors import DeadlineExceeded, OrlopError, Unavailable, Unknown
from orlop.rpc.context import NAMESPACE_HEADER_TTRPC
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Frame, FrameReader
from orlop.rpc.ttrpc.replies import Replies, TtrpcCall, TtrpcStream

__all__ = ["TtrpcCall", "TtrpcChannel", "TtrpcStream"]

# Much after much: to make a large buffer takes longer than all else for a short call.
_READ, _READ_MAX = 16 * 1024, 256 * 1024
_POLL_MAX = 3600.0


class Watcher(Protocol):
    """What a channel needs of a reactor."""

    def register(self, sock: socket.socket, action: Callable[[], None]) -> None: ...
    def unregister(self, sock: socket.socket, then: Callable[[], None] | None = None) -> None: ...


class TtrpcChannel:
    """A connection to a ttrpc server; thread-safe.

    `on_close` is called once, when the peer has gone or the channel is closed, by the thread that
    notices; pending calls then fail with Unavailable. Without a reactor, only a call notices.

    A peer that is orlopd may give answers of up to `answer_max` bytes, if it is asked for such.
    """

    namespace_header = NAMESPACE_HEADER_TTRPC

    def __init__(
        self,
        sock: socket.socket,
        reactor: Watcher | None = None,
        on_close: Callable[[], None] | None = None,
        peer: str = "a ttrpc server",
        answer_max: int = protocol.PAYLOAD_MAX,
    ) -> None:
        self._socket = sock
        self._peer = peer
        self._reactor = reactor
        self._on_close = on_close
        self._frames = FrameReader(protocol.ABSURD, most=answer_max)
        longer = answer_max > protocol.PAYLOAD_MAX
        self._asked = {protocol.ANSWER_MAX: str(answer_max)} if longer else {}
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._pending: dict[int, Replies] = {}
        self._next_stream = 1
        self._closed = False
        self._lost = False
        self._appetite = _READ
        # Whether somebody reads: the reactor does always, else one of the waiting callers.
        self._reading = reactor is not None
        self._wake = -1
        if reactor is not None:
            reactor.register(sock, self._readable)
        else:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._poll = select.poll()
            self._poll.register(self._wake, select.POLLIN)
            self._poll.register(sock, select.POLLIN)

    @classmethod
    def connect(
        cls,
        path: str,
        reactor: Watcher | None = None,
        on_close: Callable[[], None] | None = None,
        timeout: float | None = None,
        peer: str = "",
        answer_max: int = protocol.PAYLOAD_MAX,
    ) -> TtrpcChannel:
        """Connect to the Unix socket at `path`; OSError when nobody answers there.

        `peer` is what errors call the other side.

        `timeout`, in seconds, is also how long the peer may take to read a request: one that has
        stopped must not stop who calls it.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.settimeout(None)
            if timeout is not None:
                limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        except OSError:
            sock.close()
            raise
        return cls(sock, reactor, on_close, peer or f'"{path}"', answer_max)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def lost(self) -> bool:
        """Whether no call can succeed any more; `on_close` has been or will be called."""
        return self._lost

    def unary(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> bytes:
        """Make a call and wait for its answer; see `orlop.rpc.client.Channel`."""
        call = self.begin(service, method, request, metadata=metadata, timeout=timeout)
        return call.result(timeout)

    def begin(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> TtrpcCall:
        """Send a call whose answer is wanted later; Unavailable when the connection is lost.

        `timeout` is what the peer is told.
        """
        metadata = {**metadata, **self._asked}
        replies = self._open(
            lambda number: protocol.encode_request(
                number, service, method, request, metadata=metadata, timeout=timeout
            ),
            single=True,
        )
        return TtrpcCall(self, replies)

    def stream(
        self,
        service: str,
        method: str,
        requests: Iterable[bytes],
        *,
        client_streaming: bool,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> TtrpcStream:
        """Open a streaming call; see `orlop.rpc.client.Channel`."""
        outgoing = iter(requests)
        first = b"" if client_streaming else next(outgoing)
        flags = protocol.REMOTE_OPEN if client_streaming else protocol.REMOTE_CLOSED
        replies = self._open(
            lambda number: protocol.encode_request(
                number, service, method, first, metadata=metadata, timeout=timeout, flags=flags
            )
        )
        if client_streaming:
            threading.Thread(
                target=self._send_all, args=(replies, outgoing), name="orlop-send", daemon=True
            ).start()
        return TtrpcStream(self, replies, timeout)

    def _send_all(self, replies: Replies, messages: Iterator[bytes]) -> None:
        try:
            for message in messages:
                if replies.number not in self._pending:
                    return  # the call is over
                self._send(protocol.encode_data(replies.number, message))
            self._send(protocol.encode_end_of_data(replies.number))
        except OrlopError as error:
            self.fail(replies, error)
        except Exception as error:  # noqa: BLE001 - the caller's iterator: it gets its error back
            self.fail(replies, Unknown(f"requests: {type(error).__name__}: {error}"))

    def _open(self, encode: Callable[[int], bytes], *, single: bool = False) -> Replies:
        """Open a stream and send its request, in one step: stream ids must arrive growing."""
        with self._send_lock:
            number = self._next_stream
            frame = encode(number)
            replies = Replies(number, self._lock, single=single)
            with self._lock:
                if self._closed:
                    raise Unavailable(f"connection to {self._peer} is closed")
                self._pending[number] = replies
            self._next_stream = number + 2
            try:
                self._send_locked(frame)
            except BaseException:
                self.forget(replies)
                raise
        return replies

    def _send(self, frame: bytes) -> None:
        with self._send_lock:
            self._send_locked(frame)

    def _send_locked(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError as error:
            self._shutdown()  # after half a frame, no other can follow
            raise Unavailable(
                f"connection to {self._peer} lost: {error.strerror or error}"
            ) from error

    def wait(self, replies: Replies, deadline: float | None) -> Frame:
        """The next frame of a call; DeadlineExceeded at the time `deadline`."""
        try:
            with self._lock:
                return self._wait(replies, deadline)
        finally:
            if self._closed:
                self._release()

    def _wait(self, replies: Replies, deadline: float | None) -> Frame:
        try:
            while (frame := replies.take()) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DeadlineExceeded
                if self._reading:
                    replies.waiting = True
                    replies.changed.wait(left)
                else:
                    self._read(left)
            return frame
        finally:
            replies.waiting = False
            self._pass_on()

    def _read(self, seconds: float | None) -> None:
        """Read once, for all that wait. Called with the lock, which it gives up meanwhile."""
        self._reading = True
        self._lock.release()
        try:
            data = self._receive(seconds)
            if data == b"":
                self._shut()
        finally:
            self._lock.acquire()
            self._reading = False
        if data and not self._dispatch(data):
            self._lock.release()
            try:
                self._shut()
            finally:
                self._lock.acquire()

    def _receive(self, seconds: float | None) -> bytes | None:
        """Bytes, none at the end of the connection, None when there is nothing to read (yet)."""
        timeout = None if seconds is None else int(min(seconds, _POLL_MAX) * 1000) + 1
        ready = {fd for fd, _ in self._poll.poll(timeout)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
            ready.remove(self._wake)
        return self._recv() if ready else None

    def _pass_on(self) -> None:
        """Who stops reading wakes another that waits, to read from now on."""
        if not self._reading:
            for replies in self._pending.values():
                if replies.waiting:
                    replies.changed.notify()
                    return

    def fail(self, replies: Replies, error: OrlopError) -> None:
        """End a call on this side: who waits for it gets `error`, after what has come before."""
        with self._lock:
            if replies.error is None:
                replies.error = error
            replies.changed.notify()
            if self._wake >= 0 and self._reading:
                os.eventfd_write(self._wake, 1)

    def forget(self, replies: Replies) -> None:
        """Drop what still comes for a call."""
        with self._lock:
            self._pending.pop(replies.number, None)

    def _recv(self) -> bytes | None:
        try:
            data = self._socket.recv(self._appetite, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._appetite = _READ_MAX if len(data) >= _READ else _READ
        return data

    def _readable(self) -> None:
        data = self._recv()
        if data is None:
            return
        with self._lock:
            sane = data != b"" and self._dispatch(data)
        if not sane:
            self._shut()

    def _dispatch(self, data: bytes) -> bool:
        """Hand over what has come; False if the peer does not speak ttrpc (any more)."""
        try:
            frames = self._frames.feed(data)
        except OrlopError:
            return False
        for frame in frames:
            replies = self._pending.get(frame.stream)
            if replies is not None:
                replies.put(frame)
        return True

    def close(self) -> None:
        """Close the connection; pending calls fail. Idempotent."""
        self._shut()

    def _shutdown(self) -> None:
        self._lost = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone already

    def _shut(self) -> None:
        self._shutdown()  # who sends just now must not hold up the reactor
        with self._lock:
            if self._closed:
                return
            self._closed = self._lost = True
            for replies in self._pending.values():
                if replies.error is None:
                    replies.error = Unavailable(f"connection to {self._peer} lost")
                replies.changed.notify()
        if self._reactor is not None:
            self._reactor.unregister(self._socket, self._close_socket)
        else:
            self._release()
        if self._on_close is not None:
            self._on_close()

    def _release(self) -> None:
        """Without a reactor: give the descriptors back, once nobody reads any more."""
        with self._lock:
            if self._reading or self._wake < 0:
                return
            wake, self._wake = self._wake, -1
        os.close(wake)
        self._close_socket()

    def _close_socket(self) -> None:
        with self._send_lock:  # it has been shut down: who still sends ends at once
            self._socket.close()
