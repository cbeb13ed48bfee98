"""A process's standard streams as fifos: the client's side.

The client makes the fifos and opens its ends before the task is created; the shim opens the others.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from orlop.client.stdio import Streams

_CHUNK = 64 * 1024


class Fifos:
    """Fifos for one process, in a folder of their own below `parent`.

    A `Channel`, whose input is ended by `end_input`: the call that a fifo cannot make.
    `stdin_fd` (if asked for), `stdout_fd` and `stderr_fd` (absent with a terminal, which has one
    output) are the client's non-blocking ends, or None. Use as a context manager: leaving it closes
    the ends and removes the folder.
    """

    # Their end does not tell that of the process: the shim holds them open for other clients.
    linger = 0.0
    shared = False

    def __init__(self, parent: Path, name: str, *, stdin: bool, terminal: bool) -> None:
        parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=parent))
        self.stdin_fd: int | None = None
        self.stdout_fd: int | None = None
        self.stderr_fd: int | None = None
        self.streams = Streams(
            stdin=self._make(f"{name}-stdin") if stdin else "",
            stdout=self._make(f"{name}-stdout"),
            stderr="" if terminal else self._make(f"{name}-stderr"),
            terminal=terminal,
        )
        if stdin:
            # Opened for both, so that the open neither blocks nor fails before the shim reads.
            self.stdin_fd = os.open(self.streams.stdin, os.O_RDWR | os.O_NONBLOCK)
        self.stdout_fd = os.open(self.streams.stdout, os.O_RDONLY | os.O_NONBLOCK)
        if not terminal:
            self.stderr_fd = os.open(self.streams.stderr, os.O_RDONLY | os.O_NONBLOCK)

        self.end_input: Callable[[], None] = lambda: None

    @property
    def takes_input(self) -> bool:
        return self.stdin_fd is not None

    @property
    def outputs(self) -> Sequence[int]:
        return [fd for fd in (self.stdout_fd, self.stderr_fd) if fd is not None]

    @property
    def input(self) -> int:
        assert self.stdin_fd is not None
        return self.stdin_fd

    def receive(self, fd: int) -> tuple[int, bytes]:
        return (1 if fd == self.stdout_fd else 2), os.read(fd, _CHUNK)

    def send(self, data: bytes) -> int:
        if not data:
            self.end_input()
            return 0
        return os.write(self.input, data)

    def _make(self, name: str) -> str:
        path = self._folder / name
        os.mkfifo(path, 0o700)
        return str(path)

    def __enter__(self) -> Fifos:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for fd in (self.stdin_fd, self.stdout_fd, self.stderr_fd):
            if fd is not None:
                os.close(fd)
        shutil.rmtree(self._folder, ignore_errors=True)
