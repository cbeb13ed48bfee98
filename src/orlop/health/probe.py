"""Runs one check in a container: an exec through the tasks, whose output comes by a fifo."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from google.protobuf.any_pb2 import Any as AnyMessage

from orlop.containers import Container
from orlop.errors import NotFound, OrlopError
from orlop.health.state import FAILED, Result
from orlop.oci.healthcheck import SECOND, Healthcheck
from orlop.rpc import CallContext
from orlop.runtime import TaskManager
from orlop.runtime.model import Stdio
from orlop.runtime.task import Task
from orlop.wire.task_types_pb2 import RUNNING, STOPPED

OUTPUT_MAX = 4096
PREFIX = "orlop-health-"  # nerdctl has checks of its own, called health-check-…
_PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_CHUNK = 64 * 1024
_CHUNKS = 16
_BREATH = 0.01  # seconds between reads of what is thrown away
_CALL_LIMIT = 30.0
_WAIT_MAX = 3600.0  # at a time: poll takes no more than 24 days
_KILL_LIMIT = 5.0
_PAUSED_LIMIT = 0.5  # a shim whose runtime is frozen obeys once it goes on
_KILLED = 128 + signal.SIGKILL
_KNELL = 1.0  # seconds in which it shows whether the container has ended as well


class Interrupted(Exception):
    """The daemon ends, or the task has ended: the check has no result."""


class Prober:
    """Runs checks, any number at once; `heard` must be told of every exec's exit."""

    def __init__(self, tasks: TaskManager, folder: Path) -> None:
        self._tasks = tasks
        self._folder = folder
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.iterdir():
            left.unlink()
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Run] = {}
        self._closed = False

    def close(self) -> None:
        """Let go of what is running; the next daemon ends it."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for run in running:
            run.interrupt(leave=True)

    def heard(self, namespace: str, exec_id: str, status: int) -> bool:
        """An exec has ended; whether anybody was waiting for it."""
        with self._lock:
            run = self._running.get((namespace, exec_id))
        return run is not None and run.ended(status)

    def stop(self, namespace: str, exec_id: str) -> None:
        """Give up a check: its task has ended, or is paused."""
        with self._lock:
            run = self._running.get((namespace, exec_id))
        if run is not None:
            run.interrupt()

    def run(
        self, namespace: str, container: Container, check: Healthcheck, begin: Callable[[str], None]
    ) -> Result:
        """Run a check to its end, or its time limit. `begin` is told its exec's id before.

        Raises Interrupted when there is no result.
        """
        start = time.time_ns()
        exec_id = f"{PREFIX}{secrets.token_hex(6)}"
        begin(exec_id)
        try:
            task = self._tasks.get(namespace, container.id)
            exit_code, output = self._run(task, container, check, exec_id)
            # One that failed because its container ended, or is paused, says nothing about it.
            if exit_code and task.state().status != RUNNING:
                raise Interrupted
        except NotFound as error:
            raise Interrupted from error
        return Result(start, time.time_ns(), exit_code, output)

    def _run(
        self, task: Task, container: Container, check: Healthcheck, exec_id: str
    ) -> tuple[int, str]:
        namespace = task.namespace
        try:
            with _Run(task, exec_id, self._folder / exec_id) as run:
                self._add(run, (namespace, exec_id))
                try:
                    return run.run(_process(container, check), check.timeout / SECOND)
                finally:
                    with self._lock:
                        del self._running[namespace, exec_id]
        except NotFound:
            raise
        except OrlopError as error:
            return FAILED, str(error)

    def _add(self, run: _Run, key: tuple[str, str]) -> None:
        with self._lock:
            if self._closed:
                raise Interrupted
            self._running[key] = run

    def end(self, namespace: str, container: str, exec_id: str) -> None:
        """Kill and forget an exec that nobody waits for; fine if there is none."""
        ctx = _context(namespace)
        with suppress(OrlopError):
            task = self._tasks.get(namespace, container)
            with suppress(NotFound):
                task.kill(ctx, signal.SIGKILL, exec_id)
                ctx = _context(namespace, _KILL_LIMIT)
                task.wait(ctx, exec_id)
            task.delete_exec(_context(namespace), exec_id)


class _Run:
    """One exec, from its fifo to its deletion."""

    def __init__(self, task: Task, exec_id: str, path: Path) -> None:
        self._task = task
        self._namespace = task.namespace
        self._id = exec_id
        self._calls = self._farewell = _context(task.namespace)
        self._path = path
        self._status: int | None = None
        self._interrupted = threading.Event()
        self._left = False
        self._output = b""
        self._more = False
        self._lock = threading.Lock()

    def __enter__(self) -> _Run:
        with ExitStack() as opened:
            os.mkfifo(self._path, 0o600)
            opened.callback(self._path.unlink, missing_ok=True)
            self._fifo = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            opened.callback(os.close, self._fifo)
            self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            opened.callback(self._close_told)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _close_told(self) -> None:
        with self._lock:
            os.close(self._told)
            self._told = -1

    def ended(self, status: int) -> bool:
        """It has ended; whether that is still of interest."""
        self._status = status
        self._tell()
        return not self._interrupted.is_set()

    def interrupt(self, *, leave: bool = False) -> None:
        """Give up; `leave` what runs as it is."""
        self._left = leave
        self._interrupted.set()
        self._calls.cancel()
        if leave:
            self._farewell.cancel()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            if self._told >= 0:
                os.eventfd_write(self._told, 1)

    def run(self, process: AnyMessage, limit: float) -> tuple[int, str]:
        """The exit code and the output."""
        # A fifo by way of `file://`: the process has both ends of its output in it, uncopied.
        uri = f"file://{quote(str(self._path))}"
        self._task.exec(self._calls, self._id, Stdio("", uri, uri), process)
        try:
            self._task.start(self._calls, self._id)
            in_time = self._await(limit)
        except BaseException:
            self._forget(kill=True)
            raise
        self._forget(kill=not in_time)
        # The kernel kills what is in a container before its first process is quite dead.
        if self._status == _KILLED and self._interrupted.wait(_KNELL):
            raise Interrupted
        self._drain()
        output = self._output.decode(errors="replace") + ("..." if self._more else "")
        if in_time:
            assert self._status is not None
            return self._status, output
        text = f"Health check exceeded timeout ({limit:g}s)"
        return FAILED, f"{text}: {output}" if output else text

    def _await(self, limit: float) -> bool:
        """Read until the process has ended; whether it has in time."""
        deadline = time.monotonic() + limit
        poll = select.poll()
        poll.register(self._fifo, select.POLLIN)
        poll.register(self._told, select.POLLIN)
        while self._status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return self._has_ended()
            for fd, _ in poll.poll(min(left, _WAIT_MAX) * 1000):
                if fd == self._fifo and self._drain():
                    poll.unregister(fd)
            if self._interrupted.is_set():
                raise Interrupted
            if self._more:
                time.sleep(_BREATH)
        return True

    def _has_ended(self) -> bool:
        """Ask, in case its event was lost."""
        with suppress(OrlopError):
            state = self._task.state(self._id)
            if state.status == STOPPED and state.exit is not None:
                self._status = state.exit.status
        return self._status is not None

    def _drain(self) -> bool:
        """Take what output is there, if it is not endless; whether it has ended."""
        for _ in range(_CHUNKS):
            try:
                data = os.read(self._fifo, _CHUNK)
            except BlockingIOError:
                return False
            if not data:
                return True
            room = OUTPUT_MAX - len(self._output)
            self._output += data[:room]
            self._more = self._more or len(data) > room
        return False

    def _forget(self, *, kill: bool) -> None:
        """Delete the exec, killed if need be. One that was given up is deleted when it ends."""
        given_up = self._interrupted.is_set()
        self._farewell = _context(self._namespace, _PAUSED_LIMIT if given_up else _CALL_LIMIT)
        if self._left:
            return
        with suppress(OrlopError):
            if kill:
                with suppress(NotFound):
                    self._task.kill(self._farewell, signal.SIGKILL, self._id)
                    if self._interrupted.is_set():
                        return
                    self._task.wait(_context(self._namespace, _KILL_LIMIT), self._id)
            self._task.delete_exec(self._farewell, self._id)


def _process(container: Container, check: Healthcheck) -> AnyMessage:
    """The container's own process, with the check's command and no terminal."""
    spec = json.loads(container.spec.value) if container.spec is not None else {}
    process = {**spec.get("process", {}), "args": list(check.command), "terminal": False}
    return AnyMessage(type_url=_PROCESS, value=json.dumps(process).encode())


def _context(namespace: str, limit: float = _CALL_LIMIT) -> CallContext:
    return CallContext(namespace=namespace, deadline=time.monotonic() + limit)
