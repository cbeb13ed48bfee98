"""Named streams beside a call: a client opens one, and names it in the call that uses it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from orlop.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from orlop.rpc import CallContext, Service
from orlop.rpc.convert import any_type, pack
from orlop.wire.services import streaming_pb2 as pb

# Progress is the only chatty stream; a client that does not read misses what is new.
_OUTGOING_MAX = 1000


class Stream:
    """One open stream, the daemon's side. `receive` is for one thread at a time."""

    def __init__(self, incoming: Iterator[Any]) -> None:
        self._incoming = incoming
        self._outgoing: queue.Queue[Any | None] = queue.Queue()
        self._closed = False

    def send(self, message: Any) -> None:
        """Queue a message for the client; dropped when it is gone or far behind."""
        if not self._closed and self._outgoing.qsize() < _OUTGOING_MAX:
            self._outgoing.put(message)

    def receive(self) -> Any:
        """The client's next message; Unavailable when it has gone."""
        try:
            message = next(self._incoming, None)
        except Exception as error:  # each transport breaks off in its own way
            raise Unavailable(f"stream broke off: {error}") from error
        if message is None:
            raise Unavailable("stream was closed by its client")
        return message

    def close(self) -> None:
        """End the stream; what was sent before is still delivered."""
        self._closed = True
        self._outgoing.put(None)

    def outgoing(self) -> Iterator[Any]:
        while (message := self._outgoing.get()) is not None:
            yield message


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
