"""Runs a plugin's program: in a process group of its own, with limits of time and of output."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orlop.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable, Unknown

OUTPUT_MAX = 1 << 20
"""Bytes of output after which a program is not at its senses."""
_CHUNK = 64 * 1024


class Done(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


class Programs:
    """Starts programs, and ends those that run when it is closed. Thread-safe.

    All of them inherit `fds`.
    """

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self._fds = fds
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._closed = False

    def run(self, path: Path, env: Mapping[str, str], text: bytes, timeout: float) -> Done:
        """Run the program to its end, with `text` to read, `timeout` seconds at most.

        One that is not waited for any longer is killed, with all of its group. Raises NotFound or
        FailedPrecondition if it cannot be run, DeadlineExceeded, Unknown for endless output, and
        Unavailable when this is closed.
        """
        try:
            process = self._start(path, env, text)
            try:
                output = _collect(process, path, timeout)
            finally:
                code = self._end(process)
        except FileNotFoundError:
            raise NotFound(f'program "{path}"') from None
        except OSError as error:  # it is no program, or descriptors or processes are scarce
            reason = (error.strerror or str(error)).lower()
            raise FailedPrecondition(f'"{path}" cannot be run: {reason}') from None
        if self._closed and code == -signal.SIGKILL:
            raise Unavailable(f'"{path}" was ended with the daemon')
        return Done(code, *output)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for pid in self._running:
                _kill(pid)

    def _start(self, path: Path, env: Mapping[str, str], text: bytes) -> subprocess.Popen[bytes]:
        # A file, not a pipe: it may be longer than a pipe, and the program need not read it.
        stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
        try:
            os.write(stdin, text)
            os.lseek(stdin, 0, os.SEEK_SET)
            with self._lock:
                if self._closed:
                    raise Unavailable(f'"{path}" is not started: the daemon is ending')
                process = subprocess.Popen(
                    [path],
                    cwd="/",
                    env=env,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    process_group=0,
                    pass_fds=self._fds,
                )
                self._running.add(process.pid)
        finally:
            os.close(stdin)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit code; it is killed if it has not ended. What it left behind lives on."""
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            _kill(process.pid)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._running.discard(process.pid)
            code = process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return code


def _collect(process: subprocess.Popen[bytes], path: Path, timeout: float) -> tuple[bytes, bytes]:
    """What it prints until it ends: who it leaves behind may hold the pipes open."""
    assert process.stdout is not None and process.stderr is not None
    found = {pipe.fileno(): bytearray() for pipe in (process.stdout, process.stderr)}
    deadline = time.monotonic() + timeout
    pidfd = os.pidfd_open(process.pid)
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
                raise Unknown(f'"{path}" prints more than {OUTPUT_MAX >> 20} MiB')
            if not over and time.monotonic() > deadline:
                break
    finally:
        os.close(pidfd)
    if not over:
        raise DeadlineExceeded(f'"{path}" has not ended within {timeout:g} seconds')
    stdout, stderr = map(bytes, found.values())
    return stdout, stderr


def _kill(pid: int) -> None:
    """Its group; it is not reaped before it is known to be ended."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
