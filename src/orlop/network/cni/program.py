"""Runs plugins' programs, until there is to be an end of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from orlop.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable, Unknown
from orlop.sys.program import Done, Program


class Programs:
    """Starts programs, and ends those that run when it is closed. Thread-safe.

    All of them inherit `fds`.
    """

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self._fds = fds
        self._lock = threading.Lock()
        self._running: set[Program] = set()
        self._closed = False

    def run(self, path: Path, env: Mapping[str, str], text: bytes, timeout: float) -> Done:
        """Run the program to its end, with `text` to read, `timeout` seconds at most.

        One that is not waited for any longer is killed, with all of its group. Raises NotFound or
        FailedPrecondition if it cannot be run, DeadlineExceeded, Unknown for endless output, and
        Unavailable when this is closed.
        """
        try:
            program = self._start(path, env, text)
            try:
                done = program.result(timeout)
            finally:
                with self._lock:
                    self._running.discard(program)
        except (DeadlineExceeded, Unknown) as error:
            raise type(error)(f'"{path}": {error.message}') from None
        except FileNotFoundError:
            raise NotFound(f'program "{path}"') from None
        except OSError as error:  # it is no program, or descriptors or processes are scarce
            reason = (error.strerror or str(error)).lower()
            raise FailedPrecondition(f'"{path}" cannot be run: {reason}') from None
        if self._closed and done.code == -signal.SIGKILL:
            raise Unavailable(f'"{path}" was ended with the daemon')
        return done

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for each in self._running:
                each.kill()

    def _start(self, path: Path, env: Mapping[str, str], text: bytes) -> Program:
        with self._lock:
            if self._closed:
                raise Unavailable(f'"{path}" is not started: the daemon is ending')
            program = Program([path], text, cwd=Path("/"), env=env, fds=self._fds)
            self._running.add(program)
        return program
