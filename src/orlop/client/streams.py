"""Named streams beside a call: messages that come in are handled in a thread of their own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from google.protobuf.any_pb2 import Any

from orlop.client.connection import Connection
from orlop.errors import OrlopError
from orlop.rpc.convert import pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services.streaming_pb2 import StreamInit

_JOIN = 1.0
_LAST_WORDS = 10.0


def stream_id(purpose: str) -> str:
    """An id that nobody else chooses."""
    return f"orlop-{purpose}-{os.getpid()}-{os.urandom(4).hex()}"


class MessageStream:
    """One named stream; the daemon knows its `id` as soon as it is made."""

    def __init__(self, connection: Connection, purpose: str) -> None:
        self.id = stream_id(purpose)
        self._outgoing: queue.SimpleQueue[Any | None] = queue.SimpleQueue()
        self._outgoing.put(pack(StreamInit(id=self.id)))
        self._incoming = connection.streaming.stream(self._requests())
        try:
            next(self._incoming)
        except BaseException:
            self._outgoing.put(None)  # or who sends would wait for ever
            raise
        self._thread = threading.Thread(target=self._read, name=f"orlop-{purpose}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.hear_out()
        self.close()

    def hear_out(self) -> None:
        """Called when all went well: wait for what is still to come, if that is of use."""

    def handle(self, message: Any) -> None:
        """Called for each message that comes in."""
        raise NotImplementedError

    def send(self, message: Any) -> None:
        self._outgoing.put(message)

    def _requests(self) -> Iterator[Any]:
        while (message := self._outgoing.get()) is not None:
            yield message

    def _read(self) -> None:
        try:
            for message in self._incoming:
                self.handle(message)
        except OrlopError:
            pass  # the stream ends with the call, which tells how that went

    def close(self) -> None:
        """Say no more, and hear no more."""
        self._outgoing.put(None)
        self._incoming.close()
        self._thread.join(_JOIN)


class Progress(NamedTuple):
    """What the daemon says of one object of a transfer.

    `name` is its ingest ref, the name of an image that was saved, or empty for the transfer itself;
    `done` and `total` are in bytes.
    """

    event: str
    name: str
    done: int
    total: int
    digest: str = ""


class ProgressStream(MessageStream):
    """Passes on the progress of a transfer."""

    def __init__(self, connection: Connection, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        super().__init__(connection, "progress")

    def hear_out(self) -> None:
        """The daemon ends this stream with the transfer, once all is said."""
        self._outgoing.put(None)
        self._thread.join(_LAST_WORDS)

    def handle(self, message: Any) -> None:
        found = types.Progress.FromString(message.value)
        self._on_progress(
            Progress(found.event, found.name, found.progress, found.total, found.desc.digest)
        )
