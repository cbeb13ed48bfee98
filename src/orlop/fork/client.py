"""The daemon's side of the fork server: start it, ask it, start another if it dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from orlop import tracing
from orlop.errors import Unavailable
from orlop.fork.server import MAX_REQUEST
from orlop.sys.limits import limit_as_at_first
from orlop.tally import Counter, Timing

# Seconds for an answer, and for an end; one that takes longer is stuck, and replaced.
_LIMIT, _END = 60.0, 5.0


class ForkServer:
    """Forks warm processes on request; thread-safe.

    `preload` names the modules that its children share. The process is started by `start()` (which
    does not wait until it is warm) and replaced when it has died. `workers` counts the `Worker`s
    that are there.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready = False
        self.forks = Timing("name")
        self.failures = Counter("name")
        self.workers = Counter("name")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self._lock:
            self._start()

    def stop(self) -> None:
        """End the server; what it forked lives on."""
        with self._lock:
            self._drop()

    def spawn(
        self, entry: str, args: Mapping[str, Any], fds: Sequence[int] = (), *, name: str
    ) -> int:
        """Fork a child that runs `entry` ("module:function") as `function(args, fds)`; its pid.

        The child leads its own session, and `name` (15 characters) is what `ps` shows. The caller
        keeps its own copies of `fds`. Raises Unavailable when no child can be forked.
        """
        message = json.dumps({"entry": entry, "args": args, "name": name}).encode()
        if len(message) > MAX_REQUEST:
            raise Unavailable(f"fork request for {entry} is {len(message)} bytes long")
        asked = tracing.span("fork", {"orlop.process": name})
        with asked, self.forks.timed(name), self._lock:
            try:
                answer = self._ask(message, fds)
            except OSError:
                self._drop()
                answer = self._retry(message, fds)
        if "error" in answer:
            self.failures.add(name)
            raise Unavailable(f"fork {name}: {answer['error']}")
        return int(answer["pid"])

    def _retry(self, message: bytes, fds: Sequence[int]) -> dict[str, Any]:
        try:
            return self._ask(message, fds)
        except OSError as error:
            self._drop()
            raise Unavailable(f"fork server does not answer: {error}") from error

    def _ask(self, message: bytes, fds: Sequence[int]) -> dict[str, Any]:
        if self._control is None:
            self._start()
        assert self._control is not None
        if not self._ready:
            self._receive()
            self._ready = True
        socket.send_fds(self._control, [message], list(fds))
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._control is not None
        try:
            answer = self._control.recv(MAX_REQUEST)
        except TimeoutError:
            # What is answered from now on has no effect; what was until now has.
            self._control.shutdown(socket.SHUT_RD)
            answer = self._control.recv(MAX_REQUEST)
        if not answer:
            raise ConnectionResetError("fork server has died")
        result: dict[str, Any] = json.loads(answer)
        return result

    def _start(self) -> None:
        if self._control is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-m", "orlop.fork.server", str(theirs.fileno()), *self._preload]
            self._process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=_environ(),
            )
        limit_as_at_first(self._process.pid)  # before it is asked for anything
        ours.settimeout(_LIMIT)
        self._control, self._ready = ours, False

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _environ() -> dict[str, str]:
    """The daemon's environment, with one malloc arena: less private memory per child."""
    return {**os.environ, "MALLOC_ARENA_MAX": "1"}
