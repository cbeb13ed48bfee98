"""A SOCKS 5 proxy (RFC 1928, 1929) that finds every host on loopback."""

from __future__ import annotations

import socket
import socketserver
import threading


class SocksProxy:
    """Listens on loopback; `asked` are the hosts and ports that it was to connect to."""

    def __init__(self, user: str = "", password: str = "") -> None:
        self.asked: list[tuple[str, int]] = []
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if self._greeted() and (target := self._target()) is not None:
                    proxy.asked.append(target)
                    with socket.create_connection(("127.0.0.1", target[1])) as further:
                        self.wfile.write(b"\5\0\0\1" + bytes(6))
                        back = threading.Thread(target=_pass, args=(further, self.connection))
                        back.start()
                        _pass(self.connection, further)
                        back.join()

            def _greeted(self) -> bool:
                _, count = self.rfile.read(2)
                methods = self.rfile.read(count)
                if not user:
                    self.wfile.write(b"\5\0")
                    return True
                if 2 not in methods:
                    self.wfile.write(b"\5\xff")
                    return False
                self.wfile.write(b"\5\2")
                self.rfile.read(1)
                given = [self.rfile.read(self.rfile.read(1)[0]).decode() for _ in range(2)]
                self.wfile.write(b"\1\0" if given == [user, password] else b"\1\1")
                return given == [user, password]

            def _target(self) -> tuple[str, int] | None:
                kind = self.rfile.read(4)[3]
                if kind != 3:
                    self.wfile.write(b"\5\x08\0\1" + bytes(6))
                    return None
                host = self.rfile.read(self.rfile.read(1)[0]).decode()
                return host, int.from_bytes(self.rfile.read(2), "big")

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has gone
