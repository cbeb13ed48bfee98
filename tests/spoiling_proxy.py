"""A way to a registry that passes everything on, unless a test wants it otherwise."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.quiet_server import QuietServer

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class Passing(BaseHTTPRequestHandler):
    """One request on its way."""

    protocol_version = "HTTP/1.1"
    proxy: SpoilingProxy

    def _do(self) -> None:
        self.proxy.requests.append((self.command, self.path, dict(self.headers)))
        try:
            if not self.proxy.spoil(self):
                self.relay()
        except OSError:
            self.close_connection = True  # the client was faster

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _do  # noqa: N815 - http.server's

    def log_message(self, *args: Any) -> None:
        pass

    @property
    def size(self) -> int:
        """Bytes of the request's body."""
        return int(self.headers.get("Content-Length", "0"))

    def body(self) -> bytes:
        """The request's body, which can be read once."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(self.size)
        data = b""
        while count := int(self.rfile.readline(), 16):
            data += self.rfile.read(count)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def relay(
        self, change: Callable[[dict[str, str]], None] = lambda _: None, status: int = 0
    ) -> bool:
        """Ask the registry, and answer as it does, but for changed headers or another status."""
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=20)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            upstream.request(self.command, self.path, self.body(), headers)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        named = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
        change(named)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self._send(status or answer.status, data, named, length)
        return True

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bool:
        """Answer in the registry's place."""
        self.body()
        self._send(status, body, headers or {}, None)
        return True

    def hang_up(self, after: int) -> bool:
        """Read so many bytes of the body, and break the connection."""
        self.rfile.read(after)
        self.close_connection = True
        return True

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], length: str | None
    ) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


Spoil = Callable[[Passing], bool]


class SpoilingProxy:
    """Listens on loopback; `spoil` may answer a request in its own way, and says so by True."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.spoil: Spoil = lambda _: False
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        handler = type("Handler", (Passing,), {"proxy": self})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
