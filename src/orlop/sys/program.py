"""Runs other people's programs for a moment, with limits of time and of output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from orlop.errors import DeadlineExceeded, Unknown
from orlop.sys.limits import limit_as_at_first

OUTPUT_MAX = 1 << 20
"""Bytes of output after which a program is not at its senses, and is killed."""
_CHUNK = 64 * 1024


class Done(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


@contextmanager
def as_input(data: bytes) -> Iterator[int]:
    """A file to be a program's standard input: it may be longer than a pipe, and need not be
    read."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class Program:
    """One run of `argv` in a process group of its own, which gets `text` to read, and `fds`.

    Raises OSError if it cannot be run. Whoever starts it calls `result`.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        text: bytes,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        self._lock = threading.Lock()
        self._reaped = False
        with as_input(text) as stdin:
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
                pass_fds=fds,
            )
        limit_as_at_first(self._process.pid)

    def result(self, timeout: float) -> Done:
        """Wait for its end, `timeout` seconds at most.

        One that is not waited for any longer is killed, with all that it started and that is in its
        group still. Raises DeadlineExceeded, and Unknown for endless output, without its name.
        """
        try:
            output = self._collect(timeout)
        finally:
            code = self._end()
        return Done(code, *output)

    def kill(self) -> None:
        """Kill it with its group, if it has not ended; from any thread."""
        with self._lock:
            if not self._reaped:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _collect(self, timeout: float) -> tuple[bytes, bytes]:
        """What it prints until it ends: who it leaves behind may hold the pipes open."""
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None
        found = {pipe.fileno(): bytearray() for pipe in (stdout, stderr)}
        deadline = time.monotonic() + timeout
        pidfd = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            for fd in (*found, pidfd):
                poll.register(fd, select.POLLIN)
            over = False
            while True:
                left = 0.0 if over else max(0.0, deadline - time.monotonic())
                ready = [fd for fd, _ in poll.poll(left * 1000)]
                if pidfd in ready and not over:
                    over = True
                    poll.unregister(pidfd)
                    continue
                if not ready:
                    break
                for fd in ready:
                    data = os.read(fd, _CHUNK)
                    found[fd] += data
                    if not data:
                        poll.unregister(fd)
                if sum(map(len, found.values())) > OUTPUT_MAX:
                    raise Unknown(f"it prints more than {OUTPUT_MAX >> 20} MiB")
                if not over and time.monotonic() > deadline:
                    break
        finally:
            os.close(pidfd)
        if not over:
            raise DeadlineExceeded(f"it has not ended within {timeout:g} seconds")
        return bytes(found[stdout.fileno()]), bytes(found[stderr.fileno()])

    def _end(self) -> int:
        """Its exit code; it is killed if it has not ended. What it left behind lives on."""
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self.kill()
        with self._lock:
            code = self._process.wait()
            self._reaped = True
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code
