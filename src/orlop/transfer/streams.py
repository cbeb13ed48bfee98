"""Named streams beside a call: a client opens one, and names it in the call that uses it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import any_type, pack
from orlop.wire.services import streaming_pb2 as pb

# Of messages that may be dropped, such as progress: a client that does not read misses what is new.
_OUTGOING_MAX = 1000
# Of messages that may not: few, since each may be large.
_AHEAD = 4


class Stream:
    """One open stream, the daemon's side. `receive` and `next` are for one thread at a time."""

    def __init__(self, incoming: Iterator[Any]) -> None:
        self._incoming = incoming
        self._changed = threading.Condition()
        self._outgoing: deque[Any] = deque()
        self._closed = False

    def send(self, message: Any) -> None:
        """Queue a message for the client; dropped when it is gone or far behind."""
        with self._changed:
            if not self._closed and len(self._outgoing) < _OUTGOING_MAX:
                self._outgoing.append(message)
                self._changed.notify_all()

    def deliver(self, message: Any, seconds: float) -> None:
        """Queue a message, waiting while the client is behind.

        Raises Unavailable when it is gone, or takes nothing for `seconds`.
        """
        with self._changed:
            self._wait(lambda: self._closed or len(self._outgoing) < _AHEAD, seconds)
            if self._closed:
                raise Unavailable("stream was closed")
            self._outgoing.append(message)
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        if not self._changed.wait_for(condition, seconds):
            raise Unavailable(f"the client of a stream took nothing for {seconds:g} seconds")

    def next(self) -> Any | None:
        """The client's next message, None after its last; Unavailable when it broke off."""
        try:
            return next(self._incoming, None)
        except Exception as error:  # each transport breaks off in its own way
            raise Unavailable(f"stream broke off: {error}") from error

    def receive(self) -> Any:
        """The client's next message; Unavailable when it has gone."""
        message = self.next()
        if message is None:
            raise Unavailable("stream was closed by its client")
        return message

    def close(self) -> None:
        """End the stream; what was sent before is still delivered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        """End the stream when the client has taken everything; Unavailable after `seconds`."""
        self.close()
        with self._changed:
            self._wait(lambda: not self._outgoing, seconds)

    def outgoing(self) -> Iterator[Any]:
        """What is sent, until the stream is closed (for the service that carries it)."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._outgoing)
                if not self._outgoing:
                    return
                message = self._outgoing[0]
            yield message
            with self._changed:
                self._outgoing.popleft()  # taken, not only asked for
                self._changed.notify_all()

    def abandon(self) -> None:
        """The client has gone: nobody waits for it any longer."""
        with self._changed:
            self._closed = True
            self._outgoing.clear()
            self._changed.notify_all()


class Streams:
    """The open streams of every namespace, by the ids that clients chose."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Stream] = {}

    def add(self, namespace: str, id: str, stream: Stream) -> None:
        """Raises AlreadyExists."""
        with self._lock:
            if (namespace, id) in self._open:
                raise AlreadyExists(f'stream "{id}"')
            self._open[namespace, id] = stream

    def get(self, namespace: str, id: str) -> Stream:
        """Raises NotFound."""
        with self._lock:
            found = self._open.get((namespace, id))
        if found is None:
            raise NotFound(f'stream "{id}"')
        return found

    def remove(self, namespace: str, id: str) -> None:
        with self._lock:
            self._open.pop((namespace, id), None)


class StreamingService(Service):
    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Streaming"]

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def stream(self, requests: Iterator[Any], ctx: CallContext) -> Iterator[Any]:
        namespace = ctx.require_namespace()
        first = next(requests, None)
        if first is None or any_type(first) != pb.StreamInit.DESCRIPTOR.full_name:
            raise InvalidArgument("first message of a stream must be StreamInit")
        name = pb.StreamInit.FromString(first.value).id
        if not name:
            raise InvalidArgument("stream has no id")
        stream = Stream(requests)
        self._streams.add(namespace, name, stream)
        try:
            ctx.on_cancel(stream.close)
            yield pack(Empty())
            yield from stream.outgoing()
        finally:
            self._streams.remove(namespace, name)
            stream.abandon()
