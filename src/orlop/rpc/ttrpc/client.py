"""A ttrpc client: many calls at once on one connection.

Replies are read by a `Reactor` that a daemon shares among all its connections, or, without one, by
a thread of the channel's own.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from orlop.errors import Cancelled, DeadlineExceeded, OrlopError, Unavailable
from orlop.rpc.context import NAMESPACE_HEADER_TTRPC
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Frame, FrameReader

_READ = 256 * 1024


class Watcher(Protocol):
    """What a channel needs of a reactor."""

    def register(self, sock: socket.socket, action: Callable[[], None]) -> None: ...
    def unregister(self, sock: socket.socket, then: Callable[[], None] | None = None) -> None: ...


class _Stream:
    """One call's replies, in the order in which they came."""

    __slots__ = ("_condition", "_error", "_frames", "ended")

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._frames: deque[Frame] = deque()
        self._error: OrlopError | None = None
        self.ended = False

    def put(self, frame: Frame) -> None:
        with self._condition:
            self._frames.append(frame)
            self._condition.notify()

    def fail(self, error: OrlopError) -> None:
        with self._condition:
            if self._error is None:
                self._error = error
            self._condition.notify_all()

    def get(self, timeout: float | None) -> Frame:
        with self._condition:
            if not self._condition.wait_for(lambda: self._frames or self._error, timeout):
                raise DeadlineExceeded
            if self._frames:
                return self._frames.popleft()
            assert self._error is not None
            raise self._error


class TtrpcChannel:
    """A connection to a ttrpc server; thread-safe.

    `on_close` is called once, from the reading thread, when the peer has gone or the channel is
    closed; pending calls then fail with Unavailable.
    """

    namespace_header = NAMESPACE_HEADER_TTRPC

    def __init__(
        self,
        sock: socket.socket,
        reactor: Watcher | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._socket = sock
        self._reactor = reactor
        self._on_close = on_close
        self._reader = FrameReader()
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next_stream = 1
        self._closed = False
        if reactor is not None:
            reactor.register(sock, self._readable)
        else:
            threading.Thread(target=self._read_all, name="orlop-ttrpc", daemon=True).start()

    @classmethod
    def connect(
        cls,
        path: str,
        reactor: Watcher | None = None,
        on_close: Callable[[], None] | None = None,
        timeout: float | None = None,
    ) -> TtrpcChannel:
        """Connect to the Unix socket at `path`; OSError when nobody answers there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.settimeout(None)
        except OSError:
            sock.close()
            raise
        return cls(sock, reactor, on_close)

    @property
    def closed(self) -> bool:
        return self._closed

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
        return self.begin(service, method, request, metadata=metadata, timeout=timeout).result(
            timeout
        )

    def begin(
        self,
        service: str,
        method: str,
        request: bytes,
        *,
        metadata: Mapping[str, str],
        timeout: float | None = None,
    ) -> TtrpcCall:
        """Send a call whose answer is wanted later; Unavailable when the connection is lost."""
        number, stream = self._open(
            lambda number: protocol.encode_request(
                number, service, method, request, metadata=metadata, timeout=timeout
            )
        )
        return TtrpcCall(stream, lambda: self._forget(number))

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
        number, stream = self._open(
            lambda number: protocol.encode_request(
                number, service, method, first, metadata=metadata, timeout=timeout, flags=flags
            )
        )
        if client_streaming:
            threading.Thread(
                target=self._send_all, args=(number, outgoing), name="orlop-send", daemon=True
            ).start()
        return TtrpcStream(stream, timeout, lambda: self._forget(number))

    def _send_all(self, number: int, messages: Iterator[bytes]) -> None:
        try:
            for message in messages:
                self._send(protocol.encode_data(number, message))
            self._send(protocol.encode_end_of_data(number))
        except OrlopError as error:
            with self._lock:
                stream = self._streams.get(number)
            if stream is not None:
                stream.fail(error)

    def _open(self, encode: Callable[[int], bytes]) -> tuple[int, _Stream]:
        """Open a stream and send its request, in one step: stream ids must arrive growing."""
        stream = _Stream()
        with self._send_lock:
            with self._lock:
                if self._closed:
                    raise Unavailable("ttrpc connection is closed")
                number = self._next_stream
                self._streams[number] = stream
            try:
                frame = encode(number)
                self._next_stream = number + 2
                self._send_locked(frame)
            except BaseException:
                self._forget(number)
                raise
        return number, stream

    def _forget(self, number: int) -> None:
        with self._lock:
            self._streams.pop(number, None)

    def _send(self, frame: bytes) -> None:
        with self._send_lock:
            self._send_locked(frame)

    def _send_locked(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError as error:
            raise Unavailable(f"ttrpc connection lost: {error.strerror or error}") from error

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._dispatch(data)
        else:
            self._shut()

    def _read_all(self) -> None:
        while True:
            try:
                data = self._socket.recv(_READ)
            except OSError:
                data = b""
            if not data:
                self._shut()
                return
            self._dispatch(data)

    def _dispatch(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            with self._lock:
                stream = self._streams.get(frame.stream)
            if stream is not None:
                stream.put(frame)

    def close(self) -> None:
        """Close the connection; pending calls fail. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone already
        if self._reactor is not None:
            self._shut()

    def _shut(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            streams = list(self._streams.values())
        if self._reactor is not None:
            self._reactor.unregister(self._socket, self._socket.close)
        else:
            self._socket.close()
        for stream in streams:
            stream.fail(Unavailable("ttrpc connection lost"))
        if self._on_close is not None:
            self._on_close()


class TtrpcCall:
    """A call under way. `result` must be asked once; `cancel` may come from any thread."""

    def __init__(self, stream: _Stream, forget: Callable[[], None]) -> None:
        self._stream = stream
        self._forget = forget

    def result(self, timeout: float | None = None) -> bytes:
        """Wait for the answer; errors as those of `orlop.rpc.client.Channel`."""
        try:
            return protocol.decode_response(self._stream.get(timeout).payload)
        finally:
            self._forget()

    def cancel(self) -> None:
        """Stop waiting: `result` raises Cancelled. The peer is not told."""
        self._stream.fail(Cancelled())


class TtrpcStream:
    """The responses of a streaming call; closing it early leaves the rest unread."""

    def __init__(self, stream: _Stream, timeout: float | None, forget: Callable[[], None]) -> None:
        self._stream = stream
        self._timeout = timeout
        self._forget = forget

    def __iter__(self) -> TtrpcStream:
        return self

    def __next__(self) -> bytes:
        if self._stream.ended:
            raise StopIteration
        frame = self._stream.get(self._timeout)
        if frame.type == protocol.DATA and not frame.flags & protocol.NO_DATA:
            return frame.payload or b""
        if frame.type == protocol.DATA:
            return next(self)
        self._finish()
        payload = protocol.decode_response(frame.payload)
        if payload:
            return payload
        raise StopIteration

    def _finish(self) -> None:
        self._stream.ended = True
        self._forget()

    def close(self) -> None:
        if not self._stream.ended:
            self._finish()
            self._stream.fail(Cancelled())
