"""A process's standard streams as fifos: the client's side.

The client makes the fifos and opens its ends before the task is created; the shim opens the others.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Streams:
    """What a task or exec request says of stdio: URIs, "" for none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Fifos:
    """Fifos for one process, in a folder of their own below `parent`.

    `stdin_fd` (if asked for), `stdout_fd` and `stderr_fd` (absent with a terminal, which has one
    output) are the client's non-blocking ends, or None. Use as a context manager: leaving it closes
    the ends and removes the folder.
    """

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
