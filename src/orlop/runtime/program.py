"""Runs a shim's program for a moment: to start a shim, to clear up, to tell about itself."""

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
from typing import IO, NamedTuple

from orlop.errors import Unknown
from orlop.rpc import CallContext

OUTPUT_MAX = 1 << 20
"""Bytes of output after which a program is not at its senses, and is killed."""
_CHUNK = 64 * 1024


class Done(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


class Program:
    """One run of `argv` in a process group of its own, which gets `text` to read."""

    def __init__(
        self,
        argv: Sequence[str],
        text: bytes,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; Unknown if it cannot be run."""
        self._name = argv[0]
        self._lock = threading.Lock()
        self._reaped = False
        # A file, not a pipe: it may be longer than a pipe, and the program need not read it.
        stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
        try:
            os.write(stdin, text)
            os.lseek(stdin, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unknown(f'shim "{self._name}" cannot be run: {reason}') from None
        finally:
            os.close(stdin)

    def result(self, what: str, timeout: float, ctx: CallContext | None = None) -> Done:
        """Wait for its end, `timeout` seconds at most, and as long as the call `ctx` is wanted.

        A program that is not waited for any longer is killed, with all that it started and that is
        in its group still. Raises Unknown with `what` it was doing, Cancelled, DeadlineExceeded.
        """
        if ctx is not None:
            ctx.on_cancel(self._kill)
        try:
            output = self._collect(what, time.monotonic() + timeout, timeout)
        finally:
            code = self._end()
        if ctx is not None:
            ctx.check()
        return Done(code, *output)

    def _collect(self, what: str, deadline: float, timeout: float) -> tuple[bytes, bytes]:
        """What it prints until it ends: a shim that it leaves behind may hold the pipes open."""
        found = {pipe.fileno(): bytearray() for pipe in self._pipes()}
        pidfd = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            for fd in (*found, pidfd):
                poll.register(fd, select.POLLIN)
            over = False
            while True:
                left = 0.0 if over else max(0.0, deadline - time.monotonic())
                ready = [fd for fd, _ in poll.poll(left * 1000)]
                over = over or pidfd in ready
                readable = [fd for fd in ready if fd != pidfd]
                if not readable and (over or not ready):
                    break
                for fd in readable:
                    data = os.read(fd, _CHUNK)
                    found[fd] += data
                    if not data:
                        poll.unregister(fd)
                if sum(map(len, found.values())) > OUTPUT_MAX:
                    raise Unknown(f'shim "{self._name}" {what}: it prints without end')
            if not over:
                raise Unknown(f'shim "{self._name}" {what}: no end in {timeout:g} s')
        finally:
            os.close(pidfd)
        stdout, stderr = map(bytes, found.values())
        return stdout, stderr

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    def _kill(self) -> None:
        with self._lock:
            if not self._reaped:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> int:
        """Its exit code; it is killed if it has not ended. What it left behind lives on."""
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._kill()
        with self._lock:
            code = self._process.wait()
            self._reaped = True
        for pipe in self._pipes():
            pipe.close()
        return code


def end_shims(namespace: str, id: str, bundle: Path) -> None:
    """Kill the shim of a bundle that does not listen to anybody: it works there, and for it."""
    wanted = {namespace.encode(), id.encode()}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            if Path(entry.path, "cwd").readlink() != bundle:
                continue
            arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            if wanted <= set(arguments):
                os.kill(int(entry.name), signal.SIGKILL)
