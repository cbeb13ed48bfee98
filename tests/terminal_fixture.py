"""Commands on pseudo-terminals, as a user has them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

from tests.patience import patient


class Terminal:
    """A command on a pseudo-terminal; after its `with` block it does not run any more."""

    def __init__(self, command: list[str], rows: int = 0, columns: int = 0) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if rows:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
            os.execv(command[0], command)
        self.seen = b""
        self._ended = False

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            os.close(self.fd)  # first: what has more to say waits for a reader, even when killed
            os.waitpid(self.pid, 0)

    def expect(self, text: bytes, seconds: float = 20) -> bytes:
        """Wait for a text; what came before it."""
        end = time.monotonic() + patient(seconds)
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            ready, _, _ = select.select([self.fd], [], [], 0.2)
            if ready:
                try:
                    self.seen += os.read(self.fd, 4096)
                except OSError:
                    assert text in self.seen, self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def wait(self, seconds: float = 30) -> int:
        """Its exit code."""
        end = time.monotonic() + patient(seconds)
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                break
            assert time.monotonic() < end, self.seen
            time.sleep(0.02)
        self._ended = True
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)
