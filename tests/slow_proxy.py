"""A way to a server that is only so fast, and counts what goes through."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

_PIECE = 64 * 1024


class SlowProxy:
    """Passes connections on to `target` (host:port); `rate` is bytes a second for all together."""

    def __init__(self, target: str, rate: float) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.passed = 0
        """Bytes that the server has sent and the client's connection has taken."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
            self._open |= {client, server}
            self._start(self._pass, client, server, False)
            self._start(self._pass, server, client, True)

    def _pass(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if slow:
                    self._wait(len(data))
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _wait(self, count: int) -> None:
        with self._lock:
            self.passed += count
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self.rate
            pause = self._free_at - now
        time.sleep(pause)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
