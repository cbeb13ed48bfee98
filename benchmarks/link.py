"""A long way to a registry: so many milliseconds there and back, so many bytes a second."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE = 16 * 1024
_BUFFER = 64  # pieces under way on one connection: the window of a TCP connection that is wide open


class _Direction:
    """Bytes of one direction of a connection, each delivered `delay` seconds after it was sent."""

    def __init__(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        self._link = link
        self._source = source
        self._target = target
        self._pieces: queue.Queue[tuple[float, bytes]] = queue.Queue(_BUFFER)

    def read(self) -> None:
        data = b"x"
        while data:
            try:
                data = self._source.recv(_PIECE)
            except OSError:
                data = b""
            self._pieces.put((self._link.arrival(len(data)), data))

    def write(self) -> None:
        broken = False
        while True:
            when, data = self._pieces.get()
            time.sleep(max(0.0, when - time.monotonic()))
            if not data:
                break
            with suppress(OSError):
                if not broken:
                    broken = True
                    self._target.sendall(data)
                    broken = False
        with suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)


class _Link:
    def __init__(self, target: str, delay: float, rate: float) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._delay = delay / 2
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def arrival(self, count: int) -> float:
        """When bytes that are sent now arrive: the link carries one piece after the other."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            return self._free + self._delay

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for one, other in ((client, server), (server, client)):
                way = _Direction(self, one, other)
                threading.Thread(target=way.read, daemon=True).start()
                threading.Thread(target=way.write, daemon=True).start()


@contextmanager
def long_way(target: str, *, delay: float, rate: float) -> Iterator[str]:
    """A host:port that leads to `target` with a round trip of `delay` s, `rate` bytes a second."""
    link = _Link(target, delay, rate)
    try:
        yield f"127.0.0.1:{link.listener.getsockname()[1]}"
    finally:
        link.listener.shutdown(socket.SHUT_RDWR)
        link.listener.close()
