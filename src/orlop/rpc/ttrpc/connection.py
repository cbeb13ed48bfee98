"""One client of a ttrpc server: its calls, their inboxes, and a lock for what goes out."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from orlop.errors import InvalidArgument, Unimplemented
from orlop.rpc import dispatch, serving
from orlop.rpc.context import LEASE_HEADER, NAMESPACE_HEADER_TTRPC, CallContext
from orlop.rpc.inbox import Inbox
from orlop.rpc.serving import Serving
from orlop.rpc.table import Method
from orlop.rpc.ttrpc import protocol
from orlop.rpc.ttrpc.protocol import Call, Message, Refusal, ServerEvent, ServerProtocol

# Much after much: to make a large buffer takes longer than all else for a short call.
_READ, _READ_MAX = 16 * 1024, 256 * 1024
# Calls of one client that no thread has begun yet, or whose answers it has not read: above the
# first its connection is not read, until below the second. Calls under way do not count.
_LOAD_HIGH, _LOAD_LOW = 64, 16


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
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._contexts: dict[int, CallContext] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._pauses = 0
        self._load = 0
        self._laden = False
        self._held = False
        self._backlog: deque[ServerEvent] = deque()
        self._closed = False
        self._appetite = _READ

    def start(self) -> None:
        self._serving.reactor.register(self._socket, self._readable)

    def retire(self) -> None:
        """ttrpc has no way to say it."""

    def close(self) -> None:
        """Close the socket and cancel the calls. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            contexts = list(self._contexts.values())
        self._on_close(self)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._serving.reactor.unregister(self._socket, self._close_socket)
        for context in contexts:
            context.cancel()

    def _pause(self) -> None:
        """Read no more until `_resume` has been called as often."""
        with self._lock:
            self._pauses += 1
            if self._pauses == 1:
                self._serving.reactor.unregister(self._socket)

    def _resume(self) -> None:
        with self._lock:
            self._pauses -= 1
            if self._pauses == 0 and not self._closed:
                self._serving.reactor.register(self._socket, self._readable)

    def _laid_on(self) -> None:
        with self._lock:
            self._load += 1
            if self._load > _LOAD_HIGH:
                self._laden = True

    def _taken_off(self) -> None:
        with self._lock:
            self._load -= 1
            if not self._laden or self._load > _LOAD_LOW:
                return
            self._laden = False
        self._serving.reactor.call_later(0, self._work_off)

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
        self._backlog.extend(self._protocol.feed(data))
        self._work_off()

    def _work_off(self) -> None:
        """On the reactor's thread: open what has come, as far as the load allows; then read on."""
        refusals: list[Refusal] = []
        while self._backlog and not self._laden and not self._closed:
            match event := self._backlog.popleft():
                case Call():
                    self._open(event)
                case Message():
                    self._deliver(event)
                case Refusal():
                    if (inbox := self._inbox(event.stream)) is not None:
                        inbox.fail(event.error)
                    else:
                        refusals.append(event)
        if refusals:
            self._pause()  # who sends nonsense and reads no answers is read no further
            self._serving.submit(self._refuse, refusals)
        self._hold(self._laden or bool(self._backlog))

    def _hold(self, wanted: bool) -> None:
        if wanted != self._held:
            self._held = wanted
            if wanted:
                self._pause()
            else:
                self._resume()

    def _open(self, call: Call) -> None:
        method = self._serving.table.find(call.service, call.method)
        context = CallContext(
            namespace=call.metadata.get(NAMESPACE_HEADER_TTRPC, ""),
            lease=call.metadata.get(LEASE_HEADER, ""),
            deadline=dispatch.deadline_after(call.timeout),
            metadata=call.metadata,
        )
        inbox = None
        if method is not None and method.client_streaming:
            inbox = Inbox(context, self._pause, self._resume)
            if call.payload:
                context.received += 1
                inbox.put(call.payload)
            if not call.open:
                inbox.end()
        with self._lock:
            if self._closed:
                return  # nobody would end it
            self._contexts[call.stream] = context
            if inbox is not None:
                self._inboxes[call.stream] = inbox
        self._serving.live.add(context)
        self._laid_on()
        self._serving.submit(self._serve, call, method, context, inbox)

    def _inbox(self, stream: int) -> Inbox | None:
        with self._lock:
            return self._inboxes.get(stream)

    def _deliver(self, message: Message) -> None:
        with self._lock:
            inbox = self._inboxes.get(message.stream)
            context = self._contexts.get(message.stream)
        if inbox is None or context is None:
            return  # the call has ended before its client knew
        if message.payload is not None:
            context.received += 1
            inbox.put(message.payload)
        if message.last:
            inbox.end()

    def _refuse(self, refusals: list[Refusal]) -> None:
        for refusal in refusals:
            self._send(protocol.encode_error(refusal.stream, refusal.error))
        self._resume()

    def _serve(
        self, call: Call, method: Method | None, context: CallContext, inbox: Inbox | None
    ) -> None:
        self._taken_off()
        try:
            self._serving.serve(
                call.service,
                call.method,
                context,
                lambda: self._send(self._answer(call, method, context, inbox)),
                lambda failure: self._send(protocol.encode_error(call.stream, failure)),
            )
        finally:
            with self._lock:
                self._contexts.pop(call.stream, None)
                self._inboxes.pop(call.stream, None)
            if inbox is not None:
                inbox.close()

    def _answer(
        self, call: Call, method: Method | None, context: CallContext, inbox: Inbox | None
    ) -> bytes:
        """The frame that ends the call; streamed responses are sent on the way."""
        if method is None:
            raise Unimplemented(f"method /{call.service}/{call.method} is not served here")
        request: object
        if inbox is not None:
            request = _parsed(inbox, method.request)
        else:
            context.received += 1
            request = _parse(method.request, call.payload)
        response = method.handler(request, context)
        if not method.server_streaming:
            context.sent += 1
            data = response.SerializeToString()
            return protocol.encode_response(call.stream, data, most=call.answer_max)
        for item in response:
            context.check()
            context.sent += 1
            self._send(protocol.encode_data(call.stream, item.SerializeToString()))
        return protocol.encode_end_of_data(call.stream)

    def _send(self, frame: bytes) -> None:
        if self._closed:
            return
        self._laid_on()
        try:
            with self._send_lock:
                self._socket.sendall(frame)
        except OSError:
            self.close()  # the client has gone
        finally:
            self._taken_off()

    def _close_socket(self) -> None:
        with self._send_lock:  # it has been shut down: who still sends ends at once
            self._socket.close()


def _parsed(inbox: Inbox, kind: type[ProtoMessage]) -> Iterator[ProtoMessage]:
    for payload in inbox.messages():
        yield _parse(kind, payload)


def _parse(kind: type[ProtoMessage], payload: bytes) -> ProtoMessage:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.DESCRIPTOR.full_name} does not parse: {error}") from None
