"""One client of a gRPC server: its streams, and what may be sent on each."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from functools import partial

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from orlop.errors import Cancelled, Internal, InvalidArgument, OrlopError, Unimplemented
from orlop.rpc import dispatch, serving
from orlop.rpc.context import LEASE_HEADER, NAMESPACE_HEADER, CallContext
from orlop.rpc.grpc import http2, messages
from orlop.rpc.grpc.http2 import Credit, Data, Fault, Opened, Reset, ServerProtocol, Settings
from orlop.rpc.grpc.load import Load
from orlop.rpc.grpc.messages import MessageReader
from orlop.rpc.inbox import Inbox
from orlop.rpc.outbox import Outbox
from orlop.rpc.serving import Serving
from orlop.rpc.table import Method

# Much after much: to make a large buffer takes longer than all else for a short call.
_READ, _READ_MAX = 16 * 1024, 256 * 1024
_BATCH = 256 * 1024
_STREAM_CREDIT = http2.STREAM_WINDOW // 4
_CONNECTION_CREDIT = http2.CONNECTION_WINDOW // 4


class _Stream:
    """One call. The reader's thread owns what comes in, the handler's what goes out."""

    def __init__(self, id: int, path: str, method: Method | None, context: CallContext) -> None:
        self.id = id
        self.path = path
        self.method = method
        self.context = context
        self.reader = MessageReader()
        self.inbox: Inbox | None = None
        self.request: bytes | None = None
        self.error: OrlopError | None = None
        self.served = False  # a handler has it
        self.ended = False  # the client will send no more
        self.allowance = http2.STREAM_WINDOW  # what the client may still send
        self.debt = 0  # what it has sent and was not let send again
        self.holds = 0  # above none it gets no credit, for the handler lags
        self.window = 0  # what we may still send
        self.room: threading.Condition | None = None  # which the sender waits for
        self.started = False  # our headers have gone
        self.gone = False  # nothing can be sent any more


class Connection:
    """Reads on the reactor's thread, serves on the pool's; `on_close` is called once.

    A client that does not read its answers holds up the threads that serve it, not the reactor.
    """

    def __init__(
        self,
        serving: Serving,
        sock: socket.socket,
        on_close: Callable[[serving.Connection], None],
    ) -> None:
        self._serving = serving
        self._socket = sock
        self._on_close = on_close
        self._protocol = ServerProtocol()
        self._outbox = Outbox(sock, serving.submit)
        self._streams: dict[int, _Stream] = {}
        self._load: Load[_Stream] = Load(partial(serving.submit, self._serve))
        self._closed = False
        self._retired = False
        self._last = 0  # the newest stream that is served
        self._appetite = _READ
        self._debt = 0
        # Guards all of the above that both sides touch.
        self._lock = threading.RLock()
        self._window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._frame_size = http2.DEFAULT_FRAME

    def start(self) -> None:
        self._post(http2.greeting())
        self._serving.reactor.register(self._socket, self._readable)

    def retire(self) -> None:
        """No more calls will be served: of none that its client is told to make elsewhere."""
        with self._lock:
            self._retired = True
            last = self._last
        self._post(http2.go_away(last, http2.NO_ERROR))

    def close(self) -> None:
        """Close the socket and cancel the calls. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            streams = list(self._streams.values())
        self._on_close(self)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._serving.reactor.unregister(self._socket, self._outbox.close)
        for stream in streams:
            self._break_off(stream)

    # What comes in, on the reactor's thread

    def _readable(self) -> None:
        try:
            data = self._socket.recv(self._appetite, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._appetite = _READ_MAX if len(data) >= _READ else _READ
        if not data:
            self.close()
            return
        try:
            for event in self._protocol.feed(data):
                self._take(event)
        except Fault as fault:
            self._post(http2.go_away(self._protocol.last, fault.code, str(fault)))
            self.close()
            return
        if replies := self._protocol.take_replies():
            self._post(replies)

    def _take(self, event: http2.Event) -> None:
        match event:
            case Opened():
                self._open(event)
            case Data():
                self._receive(event)
            case Credit():
                self._may_send(event)
            case Reset():
                with self._lock:
                    stream = self._streams.get(event.stream)
                if stream is not None:
                    self._break_off(stream)
            case Settings():
                # The client goes by them when it reads the acknowledgement, which must come before
                # what a handler sends by them.
                self._post(self._protocol.take_replies())
                self._adapt(event)

    def _open(self, event: Opened) -> None:
        headers = event.headers
        if not messages.is_grpc(headers.get("content-type", "")):
            self._post(
                http2.frame(
                    http2.HEADERS,
                    http2.END_HEADERS | http2.END_STREAM,
                    event.stream,
                    messages.NOT_GRPC,
                )
            )
            return
        path = headers.get(":path", "")
        service, _, name = path.removeprefix("/").partition("/")
        context = CallContext(
            namespace=headers.get(NAMESPACE_HEADER, ""),
            lease=headers.get(LEASE_HEADER, ""),
            deadline=dispatch.deadline_after(messages.timeout(headers.get("grpc-timeout", ""))),
            metadata=headers,
        )
        method = self._serving.table.find(service, name)
        stream = _Stream(event.stream, path, method, context)
        with self._lock:
            if self._closed or self._retired:
                return  # nobody would end it, or its client makes it elsewhere
            self._last = stream.id
            stream.window = self._stream_window
            self._streams[stream.id] = stream
        if method is None:
            stream.error = Unimplemented(f"method {path} is not served here")
            self._serve_soon(stream)
        elif method.client_streaming:
            stream.inbox = Inbox(
                context, partial(self._hold, stream), partial(self._release, stream)
            )
            self._serve_soon(stream)
        if event.ended:
            self._end_of_requests(stream)

    def _receive(self, event: Data) -> None:
        self._debt += event.size
        if self._debt >= _CONNECTION_CREDIT:
            self._post(http2.credit(0, self._debt))
            self._debt = 0
        with self._lock:
            stream = self._streams.get(event.stream)
        if stream is None:
            return  # the call has ended before its client knew
        if stream.ended:
            raise Fault(http2.STREAM_CLOSED, f"more after the end of stream {stream.id}")
        if event.size > stream.allowance:
            raise Fault(http2.FLOW_CONTROL_ERROR, f"more than wanted on stream {stream.id}")
        with self._lock:
            stream.allowance -= event.size
            stream.debt += event.size
        if stream.error is None:
            self._unpack(stream, event.data)
        if event.ended:
            self._end_of_requests(stream)
        elif stream.debt >= _STREAM_CREDIT and stream.holds <= 0:
            self._give_credit(stream)

    def _unpack(self, stream: _Stream, data: bytes) -> None:
        try:
            found = stream.reader.feed(data)
        except OrlopError as error:
            stream.error = error
            if stream.inbox is not None:
                stream.inbox.fail(error)
            else:
                self._serve_soon(stream)
            return
        stream.context.received += len(found)
        for message in found:
            if stream.inbox is not None:
                stream.inbox.put(message)
            elif stream.request is None:
                stream.request = message

    def _end_of_requests(self, stream: _Stream) -> None:
        stream.ended = True
        if stream.reader.unfinished and stream.error is None:
            stream.error = InvalidArgument("request ends within a message")
        if stream.inbox is None:
            self._serve_soon(stream)
        elif stream.error is not None:
            stream.inbox.fail(stream.error)
        else:
            stream.inbox.end()

    def _serve_soon(self, stream: _Stream) -> None:
        if stream.served:
            return
        stream.served = True
        self._serving.live.add(stream.context)
        if not self._load.add(stream.id, stream) or self._closed:
            self._break_off(stream)
            self._post(http2.reset(stream.id, http2.REFUSED_STREAM))

    def _break_off(self, stream: _Stream) -> None:
        """End a call; one that has not begun takes no thread."""
        with self._lock:
            self._streams.pop(stream.id, None)
            stream.gone = True
        self._load.drop(stream.id)
        self._serving.live.remove(stream.context)
        stream.context.cancel()

    def _hold(self, stream: _Stream) -> None:
        """From then on, until `_release`, which the handler's thread may have called before."""
        with self._lock:
            stream.holds += 1

    def _release(self, stream: _Stream) -> None:
        with self._lock:
            stream.holds -= 1
        if not stream.ended and not stream.gone:
            self._give_credit(stream)

    def _give_credit(self, stream: _Stream) -> None:
        with self._lock:
            size, stream.debt = stream.debt, 0
            stream.allowance += size
        if size:
            self._post(http2.credit(stream.id, size))

    def _may_send(self, event: Credit) -> None:
        with self._lock:
            stream = self._streams.get(event.stream)
            exhausted = self._window <= 0
            if not event.stream:
                self._window += event.size
            elif stream is not None:
                stream.window += event.size
            if max(self._window, stream.window if stream else 0) > http2.WINDOW_MAX:
                raise Fault(http2.FLOW_CONTROL_ERROR, "window is too large")
            if stream is not None:
                self._tell_of_room([stream])
            elif exhausted:
                self._tell_of_room(self._streams.values())

    def _adapt(self, event: Settings) -> None:
        with self._lock:
            if event.frame is not None:
                self._frame_size = event.frame
            if event.window is not None:
                for stream in self._streams.values():
                    stream.window += event.window - self._stream_window
                    if stream.window > http2.WINDOW_MAX:
                        raise Fault(http2.FLOW_CONTROL_ERROR, "window is too large")
                self._stream_window = event.window
                self._tell_of_room(self._streams.values())

    def _tell_of_room(self, streams: Iterable[_Stream]) -> None:
        """Wake those alone who may go on: a thousand may wait."""
        for stream in streams:
            if stream.room is not None and min(self._window, stream.window) > 0:
                stream.room.notify()

    # What goes out, on the handler's thread

    def _serve(self, stream: _Stream) -> None:
        self._load.take_off()
        service, _, name = stream.path.removeprefix("/").partition("/")
        try:
            self._serving.serve(
                service,
                name,
                stream.context,
                partial(self._answer, stream),
                partial(self._fail, stream),
            )
        finally:
            with self._lock:
                self._streams.pop(stream.id, None)
                stream.gone = True
            if stream.inbox is not None:
                stream.inbox.close()

    def _answer(self, stream: _Stream) -> None:
        stream.context.check()  # not begun when it is over already: resets come in floods
        request, method = self._request(stream), stream.method
        assert method is not None
        response = method.handler(request, stream.context)
        if not method.server_streaming:
            self._send_message(stream, response.SerializeToString(), last=True)
            return
        self._send_all(stream, response)

    def _send_all(self, stream: _Stream, responses: Iterable[ProtoMessage]) -> None:
        try:
            for item in responses:
                stream.context.check()
                self._send_message(stream, item.SerializeToString())
        finally:
            if (close := getattr(responses, "close", None)) is not None:
                close()
        self._send(stream, self._headers(stream) + self._trailers(stream, messages.GOOD_TRAILERS))

    def _request(self, stream: _Stream) -> object:
        """What the handler is given: a message, or an iterator of them."""
        if stream.method is not None and stream.inbox is not None:
            kind = stream.method.request
            return (_parse(kind, payload) for payload in stream.inbox.messages())
        if stream.error is not None:
            raise stream.error
        if stream.request is None:
            raise Internal(f"{stream.path} was called without a request")
        assert stream.method is not None
        return _parse(stream.method.request, stream.request)

    def _fail(self, stream: _Stream, error: OrlopError) -> None:
        block = messages.error_trailers(error, started=stream.started)
        self._send(stream, self._trailers(stream, block))

    def _headers(self, stream: _Stream) -> bytes:
        """Our headers, the first time."""
        if stream.started:
            return b""
        stream.started = True
        return http2.frame(http2.HEADERS, http2.END_HEADERS, stream.id, messages.RESPONSE_HEADERS)

    @staticmethod
    def _trailers(stream: _Stream, block: bytes) -> bytes:
        """The end of a call; a client that still sends is told that nobody reads it."""
        flags = http2.END_HEADERS | http2.END_STREAM
        last = http2.frame(http2.HEADERS, flags, stream.id, block)
        return last if stream.ended else last + http2.reset(stream.id, http2.NO_ERROR)

    def _send_message(self, stream: _Stream, message: bytes, *, last: bool = False) -> None:
        """Send a message as the client makes room for it; with `last` the end of the call, too."""
        stream.context.sent += 1
        data = memoryview(messages.pack(message))
        while data:
            room = self._reserve(stream, len(data))
            parts, size = [self._headers(stream)], self._frame_size
            for start in range(0, room, size):
                part = bytes(data[start : min(start + size, room)])
                parts.append(http2.frame(http2.DATA, 0, stream.id, part))
            data = data[room:]
            if last and not data:
                parts.append(self._trailers(stream, messages.GOOD_TRAILERS))
            # Even if the call has just been broken off: only what the client receives does it let
            # us send again, on whatever stream.
            self._write(b"".join(parts))

    def _reserve(self, stream: _Stream, wanted: int) -> int:
        """How much of it may be sent now; waits until that is something."""
        with self._lock:
            while (room := min(wanted, _BATCH, self._window, stream.window)) <= 0:
                self._await_room(stream)
            if stream.gone:
                raise Cancelled
            self._window -= room
            stream.window -= room
        return room

    def _await_room(self, stream: _Stream) -> None:
        if stream.room is None:
            stream.room = threading.Condition(self._lock)
            stream.context.on_cancel(partial(self._wake, stream.room))
        stream.context.check()
        assert stream.method is not None
        # A client may let some streams lag, but neither a single answer nor all at once.
        if stream.method.server_streaming and self._window > 0:
            self._load.lag()
            stream.room.wait()
            self._load.catch_up()
        else:
            self._load.lay_on()
            stream.room.wait()
            self._load.take_off()
        stream.context.check()

    def _wake(self, room: threading.Condition) -> None:
        with self._lock:
            room.notify()

    def _send(self, stream: _Stream, data: bytes) -> None:
        if not stream.gone:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._closed:
            return
        self._load.lay_on()
        try:
            self._outbox.send(data)
        except OSError:
            self.close()  # the client has gone
        finally:
            self._load.take_off()

    def _post(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            self._outbox.post(data)
        except OSError:
            self.close()


def _parse(kind: type[ProtoMessage], payload: bytes) -> ProtoMessage:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.DESCRIPTOR.full_name} does not parse: {error}") from None
