"""Files on named streams beside a call: sent as the daemon gives credit, received as we do.

The daemon's side, and what goes over the wire, is in `orlop.transfer.bytestreams`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import IO

from google.protobuf.any_pb2 import Any

from orlop.client.connection import Connection
from orlop.client.streams import stream_id
from orlop.errors import OrlopError, Unavailable
from orlop.rpc.convert import any_type, pack
from orlop.wire import transfer_types_pb2 as types
from orlop.wire.services.streaming_pb2 import StreamInit

_PIECE = 256 << 10
_WINDOW = 2 << 20
_JOIN = 5.0


class Upload:
    """Sends a file to the daemon. `error` is what went wrong with the file, if anything did."""

    def __init__(self, connection: Connection, file: IO[bytes]) -> None:
        self.id = stream_id("import")
        self.error: Exception | None = None
        self._file = file
        self._changed = threading.Condition()
        self._credit = 0
        self._closed = False
        self._incoming = connection.streaming.stream(self._requests())
        try:
            next(self._incoming)  # the daemon knows the stream from here on
        except BaseException:
            self._close()  # or who sends would wait for ever
            raise
        self._thread = threading.Thread(target=self._listen, name="orlop-credit", daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[Any]:
        yield pack(StreamInit(id=self.id))
        while size := self._await_credit():
            try:
                data = self._file.read(min(size, _PIECE))
            except Exception as error:  # noqa: BLE001 - told to the caller, whatever it is
                self.error = error
                return
            if not data:
                return
            with self._changed:
                self._credit -= len(data)
            yield pack(types.Data(data=data))

    def _await_credit(self) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._credit or self._closed)
            return 0 if self._closed else self._credit

    def _listen(self) -> None:
        try:
            for message in self._incoming:
                if any_type(message) == types.WindowUpdate.DESCRIPTOR.full_name:
                    update = types.WindowUpdate.FromString(message.value).update
                    with self._changed:
                        self._credit += update
                        self._changed.notify()
        except OrlopError:
            pass  # the call that takes the bytes tells why
        self._close()

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self) -> None:
        """Send no more. Idempotent."""
        self._close()
        self._incoming.close()
        self._thread.join(_JOIN)


class Download:
    """Writes what the daemon sends to a file."""

    def __init__(self, connection: Connection, file: IO[bytes]) -> None:
        self.id = stream_id("export")
        self.error: Exception | None = None
        self._file = file
        self._outgoing: queue.SimpleQueue[Any | None] = queue.SimpleQueue()
        self._outgoing.put(pack(StreamInit(id=self.id)))
        self._incoming = connection.streaming.stream(self._requests())
        try:
            next(self._incoming)
        except BaseException:
            self._outgoing.put(None)  # or who sends would wait for ever
            raise
        self._outgoing.put(pack(types.WindowUpdate(update=_WINDOW)))
        self._thread = threading.Thread(target=self._receive, name="orlop-receive", daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[Any]:
        while (message := self._outgoing.get()) is not None:
            yield message

    def _receive(self) -> None:
        taken = 0
        try:
            for message in self._incoming:
                if any_type(message) != types.Data.DESCRIPTOR.full_name:
                    continue
                data = types.Data.FromString(message.value).data
                self._file.write(data)
                taken += len(data)
                if taken >= _WINDOW // 2:
                    self._outgoing.put(pack(types.WindowUpdate(update=taken)))
                    taken = 0
        except Exception as error:  # noqa: BLE001 - told to the caller, whatever it is
            self.error = error
        self._outgoing.put(None)  # no more credit: the daemon need not go on

    def finish(self) -> None:
        """Wait until everything is in the file; raises what went wrong with that."""
        self._thread.join()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Take no more. Idempotent."""
        self._outgoing.put(None)
        self._incoming.close()
        self._thread.join(_JOIN)
        if self._thread.is_alive():
            raise Unavailable("the file that is written to does not take any more")
