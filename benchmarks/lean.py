"""A gRPC client that costs next to nothing, so that what is timed is the server.

It speaks as much of HTTP/2 as it takes to make one call after another: no flow control to speak
of, one stream at a time.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_WINDOW_MAX = 2**31 - 1
# SETTINGS_INITIAL_WINDOW_SIZE, SETTINGS_MAX_FRAME_SIZE (RFC 9113, 6.5.2).
_OUR_SETTINGS = struct.pack(">HIHI", 4, _WINDOW_MAX, 5, 1 << 20)
_HEAD = 9
_READ = 1 << 20


class LeanClient:
    """A connection to the Unix socket `path`. OSError when nobody is there."""

    def __init__(self, path: str, namespace: str, timeout: float = 30.0) -> None:
        self._namespace = namespace
        self._stream = -1
        self._sent: list[tuple[bytes, bytes]] = []
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
            self._socket.sendall(
                _PREFACE
                + _frame(_SETTINGS, 0, 0, _OUR_SETTINGS)
                + _frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_MAX - 65_535))
            )
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> LeanClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, request: bytes = b"") -> bytes:
        """The answer to `/package.Service/Method`; RuntimeError when there is none."""
        self.begin(method, request)
        answer = bytearray()
        while (data := self._data()) is not None:
            answer += data
        if not answer:
            raise RuntimeError(f"{method} has failed")
        return bytes(answer[5:])

    def begin(self, method: str, request: bytes = b"") -> None:
        """Send a call whose answers `message` waits for."""
        self._stream += 2
        headers = b"".join(
            self._field(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                (b"containerd-namespace", self._namespace.encode()),
            )
        )
        body = struct.pack(">BI", 0, len(request)) + request
        self._socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, headers)
            + _frame(_DATA, _END_STREAM, self._stream, body)
        )

    def _field(self, name: bytes, value: bytes) -> bytes:
        """A header: in full and to be remembered the first time, then by its number, as clients do.

        RFC 7541, 6.1 and 6.2.1; all that there are fit into the table.
        """
        if (name, value) in self._sent:
            newest = len(self._sent) - 1 - self._sent.index((name, value))
            return bytes((0x80 | 62 + newest,))
        self._sent.append((name, value))
        return b"\x40%c%b%c%b" % (len(name), name, len(value), value)

    def message(self) -> bytes:
        """The next answer of a stream, each in a frame of its own."""
        data = self._data()
        if data is None:
            raise RuntimeError("stream has ended")
        return data[5:]

    def _data(self) -> bytes | None:
        """What comes next on the stream, None at its end."""
        while True:
            kind, flags, payload = self._read()
            if kind == _DATA and payload:
                return payload  # trailers follow
            if kind in (_RESET, _GOAWAY):
                raise RuntimeError(f"server says {kind} {payload!r}")
            if kind == _SETTINGS and not flags & _ACK:
                self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._socket.sendall(_frame(_PING, _ACK, 0, payload))
            elif kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return None

    def _read(self) -> tuple[int, int, bytes]:
        self._fill(_HEAD)
        size = int.from_bytes(self._buffer[:3])
        kind, flags = self._buffer[3], self._buffer[4]
        self._fill(_HEAD + size)
        payload = bytes(self._buffer[_HEAD : _HEAD + size])
        del self._buffer[: _HEAD + size]
        return kind, flags, payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionError("server has gone")
            self._buffer += data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
