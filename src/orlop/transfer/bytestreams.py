"""Bytes on a named stream: `Data` one way, credit for it (`WindowUpdate`) the other.

Who receives says how many bytes may be on their way; who sends stops when they are used up. A peer
that stalls, breaks off or sends more than it may ends the transfer.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Self

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from orlop.errors import Cancelled, InvalidArgument, OrlopError, Unavailable
from orlop.rpc.convert import any_type, pack
from orlop.transfer.streams import Stream
from orlop.wire.transfer_types_pb2 import Data
from orlop.wire.transfer_types_pb2 import WindowUpdate as Credit

WINDOW = 2 << 20
PIECE = 256 << 10
STALL = 300.0
_CREDIT_MAX = (1 << 31) - 1
_JOIN = 5.0


class _Peer:
    """A stream, and the thread that reads it; a context manager, which ends both."""

    def __init__(self, stream: Stream, stall: float, kind: type[Data] | type[Credit]) -> None:
        self._stream = stream
        self._stall = stall
        self._kind = kind
        self._changed = threading.Condition()
        self._error: OrlopError | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="stream-bytes", daemon=True)

    def _run(self) -> None:
        try:
            while (message := self._stream.next()) is not None:
                if any_type(message) == self._kind.DESCRIPTOR.full_name:
                    self._take(message)
        except DecodeError as error:
            self.abort(InvalidArgument(f"message on a stream does not parse: {error}"))
        except OrlopError as error:
            self.abort(error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, message: Any) -> None:
        raise NotImplementedError

    def abort(self, error: OrlopError | None = None) -> None:
        """End the stream from any thread; who waits for it gets `error`, Cancelled without one."""
        with self._changed:
            self._error = self._error or error or Cancelled()
            self._changed.notify_all()
        self._stream.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        # The stream's own call ends with it, which wakes the thread.
        self._thread.join(_JOIN)


class ByteReader(_Peer):
    """What a client sends: `read` gives the next bytes, none at the end. Use as a context.

    Raises Unavailable for a client that breaks off or sends nothing for `stall` seconds,
    InvalidArgument for one that sends more than it was allowed.
    """

    def __init__(self, stream: Stream, *, stall: float = STALL) -> None:
        super().__init__(stream, stall, Data)
        self._pieces: deque[bytes] = deque()
        self._credit = self._taken = 0

    def __enter__(self) -> Self:
        self._grant(WINDOW)
        return super().__enter__()

    def _grant(self, size: int) -> None:
        with self._changed:
            self._credit += size
        self._stream.send(pack(Credit(update=size)))

    def _take(self, message: Any) -> None:
        data = Data.FromString(message.value).data
        with self._changed:
            self._credit -= len(data)
            if self._credit < 0:
                raise InvalidArgument("client sent more bytes than it was given credit for")
            if data:
                self._pieces.append(data)
                self._changed.notify_all()

    def read(self) -> bytes:
        with self._changed:
            self._changed.wait_for(self._readable, self._stall)
            if self._error is not None:
                raise self._error
            if not self._pieces:
                if self._ended:
                    return b""
                raise Unavailable(f"client sent nothing for {self._stall:g} seconds")
            data = self._pieces.popleft()
        self._taken += len(data)
        if self._taken >= WINDOW // 2:
            self._grant(self._taken)
            self._taken = 0
        return data

    def _readable(self) -> bool:
        return bool(self._pieces) or self._ended or self._error is not None


class ByteWriter(_Peer):
    """What a client receives: `write` as much as it gives credit for. Use as a context.

    Raises Unavailable for a client that breaks off, gives no more credit, or takes nothing for
    `stall` seconds.
    """

    def __init__(self, stream: Stream, *, stall: float = STALL) -> None:
        super().__init__(stream, stall, Credit)
        self._credit = 0

    def _take(self, message: Any) -> None:
        update = Credit.FromString(message.value).update
        if update < 0:
            raise InvalidArgument(f"client gives a credit of {update} bytes")
        with self._changed:
            self._credit = min(self._credit + update, _CREDIT_MAX)
            self._changed.notify_all()

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            size = self._spend(min(len(view), PIECE))
            self._deliver(Data(data=bytes(view[:size])))
            view = view[size:]

    def _deliver(self, data: Data) -> None:
        try:
            self._stream.deliver(pack(data), self._stall)
        except Unavailable:
            if self._error is not None:  # why the stream is closed
                raise self._error from None
            raise

    def _spend(self, most: int) -> int:
        """Take up to `most` bytes of credit, at least one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._credit or self._ended or self._error is not None, self._stall
            )
            if self._error is not None:
                raise self._error
            if not self._credit:
                raise Unavailable(
                    "client stopped reading before the end"
                    if self._ended
                    else f"client took nothing for {self._stall:g} seconds"
                )
            size = min(most, self._credit)
            self._credit -= size
        return size

    def finish(self) -> None:
        """Say that this is all, when the client has taken it."""
        self._stream.finish(self._stall)
