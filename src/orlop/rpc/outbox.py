"""What goes out on a socket that one thread reads and many write."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

# Of a client that asks and asks, and reads none of the answers.
_POSTED_MAX = 1 << 20


class Outbox:
    """Sends for threads that may wait, and posts for the one that may not.

    `submit` has an action done by a thread that may wait.
    """

    def __init__(self, sock: socket.socket, submit: Callable[[Callable[[], None]], None]) -> None:
        self._socket = sock
        self._submit = submit
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._posted = bytearray()

    def send(self, data: bytes) -> None:
        """Send after all that was posted, and wait until it is sent; OSError when it cannot be."""
        with self._sending:
            self._socket.sendall(self._take() + data if self._posted else data)
        self._flush()

    def post(self, data: bytes) -> None:
        """Send soon, and never wait; OSError when the peer does not read."""
        with self._lock:
            self._posted += data
            if len(self._posted) > _POSTED_MAX:
                raise BlockingIOError("peer does not read")
        self._flush()

    def close(self) -> None:
        """Close the socket, which has been shut down: who still sends ends at once."""
        with self._sending:
            self._socket.close()

    def _take(self) -> bytes:
        with self._lock:
            data = bytes(self._posted)
            self._posted.clear()
        return data

    def _flush(self) -> None:
        """Send what was posted, unless somebody sends: who then does this after."""
        while self._posted and self._sending.acquire(blocking=False):
            try:
                left = self._send_now(self._take())
            finally:
                self._sending.release()
            if left:
                self._submit(self._flush_waiting)
                return

    def _send_now(self, data: bytes) -> int:
        """How much is left, which goes before all else."""
        try:
            sent = self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            with self._lock:
                self._posted[:0] = data[sent:]
        return len(data) - sent

    def _flush_waiting(self) -> None:
        try:
            self.send(b"")
        except OSError:
            pass  # the reader sees it, too
